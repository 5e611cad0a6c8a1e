"""What results say: flat rows, verdicts in words, fronts, tradeoff curves."""
