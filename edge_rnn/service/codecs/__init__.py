"""Payload formats, one file each; `edge_rnn.service.codec` picks the one a route needs.

base        what every decoder promises: bytes of one payload -> messages for the engine, or a `PayloadError`
values      what is a number and what is not; paths: where a value is in a document
number, csv_rows, binary           one number, rows of cells, rows of packed binary numbers
documents                          paths into a document, and arrays of readings in it
json_document, msgpack_document, cbor_document     three ways to write the same document
senml, senml_records               RFC 8428, in JSON and CBOR
sparkplug, sparkplug_payload       Sparkplug B: births, aliases, deaths, sequence numbers
"""
