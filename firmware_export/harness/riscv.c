/* RV32: start-up, semihosting, and instructions counted by mcycle (exact under `qemu -icount shift=0`). */
#include "semihosting.h"

int main(void);
void start(void);
void entry(void);

intptr_t semihosting(intptr_t operation, const void *block)
{
    register intptr_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = block;

    /* These three instructions, uncompressed and within one page, are the call. */
    __asm__ volatile(".balign 16\n\t.option push\n\t.option norvc\n\t"
                     "slli x0, x0, 0x1f\n\tebreak\n\tsrai x0, x0, 7\n\t.option pop"
                     : "+r"(a0)
                     : "r"(a1)
                     : "memory");
    return a0;
}

uint32_t stream_ticks(void)
{
    uint32_t value;

    __asm__ volatile(".option arch, +zicsr\n\tcsrr %0, mcycle" : "=r"(value));
    return value;
}

uint64_t stream_instructions(uint32_t begun, uint32_t ended)
{
    return (uint64_t)(ended - begun);
}

void start(void)
{
    semihosting_exit(main());
}

__attribute__((naked, section(".entry"), used)) void entry(void)
{
    __asm__("la sp, stack_top\n\t"
#ifdef __riscv_flen
            "li t0, 0x6000\n\t.option arch, +zicsr\n\tcsrs mstatus, t0\n\t" /* the float unit is off */
#endif
            "call start");
}
