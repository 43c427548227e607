"""For the people who look after a daemon: listen to a broker, propose a configuration, find what is slow.

client.py    an MQTT client that only looks: a session that leaves nothing behind at the broker
survey.py    what topics and payloads were seen -> what could be streams; pure
propose.py   a survey -> the text of a configuration; pure
checks.py    what `edge-rnn doctor` measures, one function each
board.py     the latest score of every stream -> a table; pure
"""
