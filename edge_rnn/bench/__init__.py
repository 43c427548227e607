"""Measurements on the machine at hand, for `edge-rnn bench`.

    inputs.py        a fixed input stream, the hash of a model's outputs, the golden hash
    timing.py        latency call by call, paced calls, rates
    path.py          the daemon's way of a reading, from payload to publication, without a network
    start.py         a cold and a warm start in processes of their own
    environment.py   what the figures depend on; nothing that names a person, a host or a folder
    report.py        the report as values, written as JSON and read back strictly
    measure.py       all of it, one after the other

A report says what was measured on the machine that made it. Whether it may stand beside the figures of
real boards is decided by who collects them, from the facts in the report (`environment.board`,
`environment.emulation`, `output.sha256`).
"""
