"""What a benchmark is made of: recipes, rules, scenarios, methods, devices."""
