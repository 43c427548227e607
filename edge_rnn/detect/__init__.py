"""From a raw reading to a verdict: guard, condition, residual, score, threshold, alarm; O(1) a step."""
