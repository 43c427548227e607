/* Cortex-M: vector table, start-up, semihosting, and instructions counted by SysTick.
 *
 * Under `qemu -icount shift=0` one instruction is one nanosecond of virtual time. SysTick counts down once per
 * processor clock, that is once in TICK_PS picoseconds (25 MHz: 40 instructions); it has 24 bits. */
#include "semihosting.h"

#define SYSTICK ((volatile uint32_t *)0xE000E010u)
#define CPACR ((volatile uint32_t *)0xE000ED88u)

extern uint32_t flash_data, data_start, data_end, bss_start, bss_end, stack_top;

int main(void);
void start(void);

intptr_t semihosting(intptr_t operation, const void *block)
{
    register intptr_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = block;

    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

uint32_t stream_ticks(void)
{
    return SYSTICK[2];
}

uint64_t stream_instructions(uint32_t begun, uint32_t ended)
{
    return (uint64_t)((begun - ended) & 0xFFFFFFu) * TICK_PS / 1000u;
}

void start(void)
{
    const uint32_t *from = &flash_data;
    uint32_t *to;

#if defined(__ARM_FP)
    /* First of all: the float and vector unit is off after reset, and the loops below may use it. */
    *CPACR |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
    for (to = &data_start; to < &data_end; to++) {
        *to = *from++;
    }
    for (to = &bss_start; to < &bss_end; to++) {
        *to = 0u;
    }
    SYSTICK[1] = 0xFFFFFFu;
    SYSTICK[2] = 0u;
    SYSTICK[0] = 5u;
    semihosting_exit(main());
}

static void fault(void)
{
    (void)semihosting(SYS_WRITE0, "fault\n");
    semihosting_exit(99);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, (const void *)start, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault,
};
