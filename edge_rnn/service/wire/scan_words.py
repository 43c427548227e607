"""Places in the table of int64 that `sources.py` gives to the compiled `scan.py`, and in the tables it names.

The buffer and where it ends; whether packets have properties (MQTT 5), the longest packet, the first time of
arrival. Where rows of columns go, how wide they are and how many messages fit; then what was found, and of
which group it is (-1: of several). The known topics: slots of a hash table, lanes, topics; the forms of
payloads, with their keys and names.
"""

from __future__ import annotations

from typing import Final

(
    BUFFER, END, FIVE, MOST, ARRIVAL, ROOM, WIDTH, OUT, OUT_ACKS, COUNT, ACK_SIZE, PAYLOADS, ONE_GROUP, SLOTS,
    SLOT_COUNT, LANE_TABLE, LANE_COUNT, TOPICS, TOPICS_SIZE, FORMS, FORM_COUNT, KEY_TABLE, KEY_COUNT, NAMES,
    NAMES_SIZE, WORDS,
) = range(26)  # fmt: skip

# A lane: its topic in TOPICS, and its form.
TOPIC_AT, TOPIC_SIZE, FORM, LANE_WORDS = range(4)
# A form: its first key and how many it has, the unit of its time, the longest payload, its group's number.
FIRST_KEY, KEYS, UNIT, MOST_BYTES, GROUP, FORM_WORDS = range(6)
# A key has three words: where its name begins in NAMES, its size, and which value it is (-1: the time).
NO_TIME, AUTO, SECONDS, MILLISECONDS, MICROSECONDS, NANOSECONDS = range(6)

# A topic whose place in the hash table is further away is left to the way in Python.
MOST_PROBES: Final = 32
