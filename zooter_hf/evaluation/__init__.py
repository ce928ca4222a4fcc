"""How good a router is: metrics, baselines, intervals, and a report of them with plots."""

from zooter_hf.evaluation.bootstrap import Comparison, compare
from zooter_hf.evaluation.evaluator import evaluate, evaluate_probabilities
from zooter_hf.evaluation.metrics import ReliabilityBin
from zooter_hf.evaluation.plots import save_plots
from zooter_hf.evaluation.report import EvaluationReport, Row, check_folder


__all__ = [
    "Comparison",
    "EvaluationReport",
    "ReliabilityBin",
    "Row",
    "check_folder",
    "compare",
    "evaluate",
    "evaluate_probabilities",
    "save_plots",
]
