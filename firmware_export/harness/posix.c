/* Standard input and output: the host, and user-mode emulation. */
#include "stream.h"

#include <stdio.h>

uint32_t stream_read(void *buffer, uint32_t size)
{
    return (uint32_t)fread(buffer, 1u, size, stdin);
}

void stream_write(const void *buffer, uint32_t size)
{
    (void)fwrite(buffer, 1u, size, stdout);
}

uint32_t stream_ticks(void)
{
    return 0u;
}

uint64_t stream_instructions(uint32_t begun, uint32_t ended)
{
    return (uint64_t)(ended - begun);
}
