/* What a machine gives to stream.c: bytes in, bytes out, and a counter of executed instructions. */
#ifndef STREAM_H
#define STREAM_H

#include <stdint.h>

/* Bytes read into the buffer; fewer than asked for only at the end. */
uint32_t stream_read(void *buffer, uint32_t size);
void stream_write(const void *buffer, uint32_t size);

/* A free-running counter, and the instructions between two of its values; 0 where nothing counts. */
uint32_t stream_ticks(void);
uint64_t stream_instructions(uint32_t begun, uint32_t ended);

#endif
