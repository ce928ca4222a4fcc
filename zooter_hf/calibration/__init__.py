"""What is fitted after training, on queries that the router was not trained on."""

from zooter_hf.calibration.budget import fit_cost_weight, fit_threshold, mean_costs
from zooter_hf.calibration.centroids import store_centroids
from zooter_hf.calibration.probabilities import Calibration, calibrate, fit_calibration
from zooter_hf.calibration.sets import calibrate_sets


__all__ = [
    "Calibration",
    "calibrate",
    "calibrate_sets",
    "fit_calibration",
    "fit_cost_weight",
    "fit_threshold",
    "mean_costs",
    "store_centroids",
]
