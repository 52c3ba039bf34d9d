"""What a chapter works with: checked parameters, networks and images, and outputs that stay."""

from crate_analysis.study.findings import RESULTS, Finding, Number
from crate_analysis.study.parameters import ParameterError
from crate_analysis.study.study import Network, Study

__all__ = ["RESULTS", "Finding", "Network", "Number", "ParameterError", "Study"]
