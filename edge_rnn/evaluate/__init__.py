"""Measures of detectors: what was found, what was missed, how often it was wrong, against labels.

Pure functions of NumPy arrays; nothing here knows a model. `alarm` is (T,) bool, the alarm is on; `score` is
(T,) float64, higher is more anomalous, NaN where nothing was judged; `labels` is (T,) bool. One row of each
belongs to one reading.

    rows        F1, false alarm rate, missed alarm rate by rows (the SKAB outlier protocol)
    events      events found, false alarms a day, delay, share of time in alarm; telemanom's event counting
    nab         the scoring of the Numenta Anomaly Benchmark
    vus         volume under the precision-recall surface, without any threshold
    affiliation how near alarms are to events, as probabilities
    ranges      range-based precision and recall
    measures    the usual selection in one call
    naive       rules that need no model, to stand beside any detector

There is no point-adjusted F1: under it a random score is as good as the best published detector (Kim et al.,
"Towards a rigorous evaluation of time-series anomaly detection", AAAI 2022).
"""
