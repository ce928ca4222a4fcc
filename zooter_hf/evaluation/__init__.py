"""How good a router is: metrics, baselines, intervals, and a report of them with plots."""

from zooter_hf.evaluation.bootstrap import Comparison, compare
from zooter_hf.evaluation.cost_evaluator import evaluate_costs
from zooter_hf.evaluation.cost_quality import CostQualityCurve, aiq, convex_hull, cost_quality_curve
from zooter_hf.evaluation.cost_report import CostQualityReport
from zooter_hf.evaluation.evaluator import evaluate, evaluate_probabilities
from zooter_hf.evaluation.metrics import ReliabilityBin
from zooter_hf.evaluation.plots import save_plots
from zooter_hf.evaluation.report import EvaluationReport, Row
from zooter_hf.evaluation.set_report import SetReport
from zooter_hf.evaluation.sets import evaluate_sets
from zooter_hf.evaluation.strong_weak import strong_weak_curve


__all__ = [
    "Comparison",
    "CostQualityCurve",
    "CostQualityReport",
    "EvaluationReport",
    "ReliabilityBin",
    "Row",
    "SetReport",
    "aiq",
    "compare",
    "convex_hull",
    "cost_quality_curve",
    "evaluate",
    "evaluate_costs",
    "evaluate_probabilities",
    "evaluate_sets",
    "save_plots",
    "strong_weak_curve",
]
