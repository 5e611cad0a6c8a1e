"""Model composition: merge separate revisions, and turn the tradeoff between them like a dial."""

from .adapters import combine_adapters, join_requests, weigh, withdraw
from .barrier import BarrierBound, barrier, barrier_bound
from .batch_norm import needs_recalibration, recalibrate_batch_norm
from .bezier import bezier, bezier_control
from .coefficients import Candidate, CoefficientSearch, held_out_objectives, search_coefficients
from .merge import average, fisher_merge, interpolate, slerp
from .paths import PathPoint, Picked, TradeoffPath, pick, tradeoff_path
from .recipe import METHODS, Composition, compose
from .requests import RequestsResult, RequestStep, apply_requests, cumulative_tasks, joint_task
from .sisa import Sisa, sisa_forget, sisa_train
from .sisa_files import sisa_load, sisa_save
from .soup import Soup, greedy_soup
from .swap import swap_head
from .task_vectors import dare, neg_merge, task_arithmetic, ties

__all__ = [
    "METHODS",
    "BarrierBound",
    "Candidate",
    "CoefficientSearch",
    "Composition",
    "PathPoint",
    "Picked",
    "RequestStep",
    "RequestsResult",
    "Sisa",
    "Soup",
    "TradeoffPath",
    "apply_requests",
    "average",
    "barrier",
    "barrier_bound",
    "bezier",
    "bezier_control",
    "combine_adapters",
    "compose",
    "cumulative_tasks",
    "dare",
    "fisher_merge",
    "greedy_soup",
    "held_out_objectives",
    "interpolate",
    "join_requests",
    "joint_task",
    "needs_recalibration",
    "neg_merge",
    "pick",
    "recalibrate_batch_norm",
    "search_coefficients",
    "sisa_forget",
    "sisa_load",
    "sisa_save",
    "sisa_train",
    "slerp",
    "swap_head",
    "task_arithmetic",
    "ties",
    "tradeoff_path",
    "weigh",
    "withdraw",
]
