# The guest of the floor: 32-bit protected mode, flat segments, paging off, position fixed.
#
# It is entered as the PVH boot protocol enters a kernel (ebx = address of struct hvm_start_info), so the same bytes
# run under any VMM that boots PVH images. Every access that can leave the guest is listed in docs/kvm-floor.md:
# keep both in step. AT&T syntax; names in curly braces are constants of guest.rs.

# A function of the guest: its label, and its row (offset in the image, name) in the table that guest.rs reads.
.macro function name
\name:
    .pushsection .rodata.floor_symbols, "a", @progbits
    .long \name - sandscope_floor_image
    .asciz "\name"
    .popsection
.endm

# A name for the guest-physical address of what follows.
.macro here name
5:  .set \name, 5b - sandscope_floor_image + {LOAD_ADDRESS}
.endm

# A parameter, 16 bytes: length of `name=`, `name=` padded to 11 bytes, value (the default unless the command line
# has it).
.macro parameter label, text, default
2:  .byte 4f - 3f
3:  .ascii "\text="
4:  .zero 12 - (4b - 2b)
    here \label
    .long \default
.endm

.pushsection .rodata.floor_symbols, "a", @progbits
.globl sandscope_floor_symbols
.hidden sandscope_floor_symbols
sandscope_floor_symbols:
.popsection

.pushsection .rodata.floor_image, "a", @progbits
.balign 16
.globl sandscope_floor_image
.hidden sandscope_floor_image
sandscope_floor_image:
.code32

# The entry must be the first byte of the image. The first byte of the console comes as early as can be.
function pvh_start
    cld
    movl $stack, %esp
    movl $line_up, %esi
    call console_write
    call read_parameters
    call pio_loop
    call mmio_loop
    call hlt_loop
    call touch_loop
    call fill_loop
    call spin_loop
    movl $line_done, %esi
    call console_write
    cmpl $0, stay
    jne idle_loop
    jmp power_off

# Writes the string at esi, byte by byte: a string instruction would make one exit of many bytes.
function console_write
    movl ${CONSOLE_PORT}, %edx
2:  lodsb
    testb %al, %al
    jz 3f
    outb %al, %dx
    jmp 2b
3:  ret

# Reads `name=value` words from the command line of start_info (ebx). Words that are not ours are passed over: VMMs add
# their own.
function read_parameters
    cmpl ${START_INFO_MAGIC}, (%ebx)
    jne 9f
    movl {START_INFO_COMMAND_LINE}(%ebx), %esi
    testl %esi, %esi
    jz 9f
2:  lodsb                               # to the next word
    cmpb $' ', %al
    je 2b
    testb %al, %al
    jz 9f
    decl %esi
    movl $parameters, %edx
3:  movl %esi, %eax                     # compare it with each name
    movzbl (%edx), %ecx
    leal 1(%edx), %edi
    repe cmpsb
    je 4f
    movl %eax, %esi
    addl $16, %edx
    cmpl $parameters_end, %edx
    jne 3b
    jmp 7f
4:  xorl %ecx, %ecx                     # found: its value
5:  lodsb
    subb $'0', %al
    cmpb $9, %al
    ja 6f
    movzbl %al, %eax
    imull $10, %ecx
    addl %eax, %ecx
    jmp 5b
6:  movl %ecx, 12(%edx)
    decl %esi
7:  lodsb                               # to the end of the word
    cmpb $' ', %al
    ja 7b
    je 2b
9:  ret

function pio_loop
    movl pio, %ecx
    jecxz 3f
    xorl %eax, %eax
    movl ${COUNTED_PORT}, %edx
2:  outl %eax, %dx
    incl %eax
    decl %ecx
    jnz 2b
3:  ret

function mmio_loop
    movl mmio, %ecx
    jecxz 3f
    xorl %eax, %eax
2:  movl %eax, {MMIO_ADDRESS}
    incl %eax
    decl %ecx
    jnz 2b
3:  ret

# Each HLT has a one-shot timer of its own. Interrupts stay off until the instruction before HLT, whose shadow
# covers HLT: HLT is executed even when the timer has expired by then. So there is one place where an interrupt can
# come, and its handler is the rest of the loop: IRET is not needed, which KVM can't emulate in this mode.
function hlt_loop
    movl hlt, %ebp
    testl %ebp, %ebp
    jz 3f
    call interrupts_setup
    movl %esp, %edi
2:  call hlt_spin_loop
    movl hlt_ns, %eax
    movl ${LAPIC_INITIAL_COUNT}, %ecx
    call lapic_write
    sti
    hlt
    ud2                                 # woken without an interrupt: an error
timer_interrupt:
    movl %edi, %esp                     # drops the frame of the interrupt, or both: QEMU's SVM can deliver one twice
    xorl %eax, %eax
    movl ${LAPIC_EOI}, %ecx
    call lapic_write
    decl %ebp
    jnz 2b
3:  ret

# What some guests do before they halt, in the hope that something comes to do. The timer is not armed yet: HLT waits for as
# long as without it.
function hlt_spin_loop
    movl hlt_spin, %ecx
    jecxz 3f
2:  decl %ecx
    jnz 2b
3:  ret

# Own descriptor tables, since PVH leaves none in memory. Then the LAPIC: in x2APIC mode where there is one (its
# registers are MSRs, so that no other MMIO mixes with the counted one), timer one-shot at divide by 1: one count
# per nanosecond in KVM and in QEMU.
function interrupts_setup
    lgdt gdt_pointer
    ljmp ${CODE_SELECTOR}, $own_code_segment
    here own_code_segment
    movl ${DATA_SELECTOR}, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    lidt idt_pointer
    pushl %ebx                          # cpuid writes it
    movl $1, %eax
    cpuid
    popl %ebx
    btl ${CPUID_X2APIC_BIT}, %ecx
    jnc 2f
    movl ${APIC_BASE_MSR}, %ecx
    rdmsr
    orl ${APIC_BASE_X2APIC}, %eax
    wrmsr
    movl $1, x2apic
2:  movl ${LAPIC_ENABLE}, %eax
    movl ${LAPIC_SPURIOUS}, %ecx
    call lapic_write
    movl ${LAPIC_DIVIDE_BY_1}, %eax
    movl ${LAPIC_DIVIDE}, %ecx
    call lapic_write
    movl ${TIMER_VECTOR}, %eax
    movl ${LAPIC_TIMER}, %ecx
    call lapic_write
    ret

# Writes eax to the LAPIC register whose offset in the xAPIC page is ecx. Clobbers ecx and edx.
function lapic_write
    cmpl $0, x2apic
    je 2f
    shrl $4, %ecx
    addl ${X2APIC_MSR}, %ecx
    xorl %edx, %edx
    wrmsr
    ret
2:  movl %eax, {LAPIC_ADDRESS}(%ecx)
    ret

function touch_loop
    movl touch, %ecx
    jecxz 3f
    movl ${TOUCH_ADDRESS}, %edi
2:  movl %edi, (%edi)
    addl $4096, %edi
    decl %ecx
    jnz 2b
3:  ret

# Pages with known content, behind those of touch_loop: zeros, then pages that are equal to each other but to those of no
# other guest, then pages that nothing equals. What tells guests apart is the time stamp counter.
function fill_loop
    movl touch, %edi
    shll $12, %edi
    addl ${TOUCH_ADDRESS}, %edi
    movl zeros, %ecx
    jecxz 3f
2:  movl $0, (%edi)
    addl $4096, %edi
    decl %ecx
    jnz 2b
3:  movl equals, %ecx
    orl uniques, %ecx
    jecxz 6f
    rdtsc
    movl %eax, %ebp
    movl equals, %ecx
    jecxz 5f
4:  movl %ebp, (%edi)
    movl $1, 4(%edi)
    addl $4096, %edi
    decl %ecx
    jnz 4b
5:  movl uniques, %ecx
    jecxz 6f
2:  movl %ebp, (%edi)
    movl %edi, 4(%edi)
    addl $4096, %edi
    decl %ecx
    jnz 2b
6:  ret

function spin_loop
    movl spin, %ecx
    jecxz 3f
2:  decl %ecx
    jnz 2b
3:  ret

# No timer is armed: only what comes from outside of the guest can wake it.
function idle_loop
    sti
    hlt
    jmp idle_loop

# Under the floor's VMM and QEMU (isa-debug-exit) the first write ends the VM. Firecracker ignores it and takes the
# second, the reset of the keyboard controller.
function power_off
    movb ${EXIT_SUCCESS}, %al
    outb %al, ${EXIT_PORT}
    movb ${RESET_COMMAND}, %al
    outb %al, ${RESET_PORT}
2:  cli
    hlt
    jmp 2b

function code_end
    here line_up
    .asciz "sandscope floor: up\n"
    here line_done
    .asciz "sandscope floor: done\n"

.balign 16
    here parameters
    parameter pio, "pio", 0
    parameter mmio, "mmio", 0
    parameter hlt, "hlt", 0
    parameter hlt_ns, "hlt_ns", {DEFAULT_HLT_INTERVAL_NS}
    parameter hlt_spin, "hlt_spin", 0
    parameter touch, "touch", 0
    parameter zeros, "zeros", 0
    parameter equals, "equals", 0
    parameter uniques, "uniques", 0
    parameter spin, "spin", 0
    parameter stay, "stay", 0
    here parameters_end
    here x2apic
    .long 0

.balign 8
    here gdt
    .quad 0
    .quad 0x00cf9b000000ffff            # {CODE_SELECTOR}: 4 GiB of code, readable
    .quad 0x00cf93000000ffff            # {DATA_SELECTOR}: 4 GiB of data, writable
    here gdt_pointer
    .word 3 * 8 - 1
    .long gdt

# One gate: any other vector means that something is wrong, and a triple fault says so. The low half of an address
# is its offset in the image, because the image starts at a multiple of 64 KiB.
.balign 8
    here idt
    .zero {TIMER_VECTOR} * 8
    .word timer_interrupt - sandscope_floor_image, {CODE_SELECTOR}, 0x8e00, {LOAD_ADDRESS} >> 16
    here idt_pointer
    .word ({TIMER_VECTOR} + 1) * 8 - 1
    .long idt

.balign 16
    .zero 256
    here stack

.globl sandscope_floor_image_end
.hidden sandscope_floor_image_end
sandscope_floor_image_end:
.code64
.popsection

.pushsection .rodata.floor_symbols, "a", @progbits
.globl sandscope_floor_symbols_end
.hidden sandscope_floor_symbols_end
sandscope_floor_symbols_end:
.popsection

.purgem function
.purgem here
.purgem parameter
