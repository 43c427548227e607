"""What the system's files say, shown as trees of files of other machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_rnn.bench.environment import conditions, emulation, environment

PI = {
    "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n"
    "Serial\t\t: 10000000abcdef12\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/loadavg": "0.25 0.1 0.0 1/200 1234",
    "proc/sys/kernel/arch": "aarch64",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "600000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
    "sys/class/thermal/thermal_zone0/temp": "48686\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
}


def machine(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_boards_facts_are_read_and_its_serial_number_is_not(tmp_path) -> None:
    root = machine(tmp_path, PI)
    found = environment("F", 8, root)
    assert (found.cpu, found.board) == ("Cortex-A72", "Raspberry Pi 4 Model B Rev 1.4")
    assert (found.cores, found.governors, found.virtual) == (2, ["ondemand"], False)
    assert "abcdef12" not in repr(found)
    now = conditions(root)
    assert (now.mhz, now.temperature_c, now.throttled, now.load) == ([1800.0, 600.0], 48.686, "0x50005", 0.25)


def test_a_machine_that_says_nothing_gives_nulls(tmp_path) -> None:
    found, now = environment("U", 4, tmp_path), conditions(tmp_path)
    assert (found.board, found.governors, found.cores, found.virtual) == (None, [], 0, False)
    assert found.cpu == found.machine
    assert (now.mhz, now.temperature_c, now.throttled, now.load) == ([], None, None, None)


def test_a_server_counts_its_throttling_and_says_that_it_is_virtual(tmp_path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/cpuinfo": "model name\t: Some CPU\ncpu MHz\t\t: 2596.1\nflags\t\t: fpu hypervisor fma\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "2",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "3",
        },
    )
    assert environment("F", 16, root).virtual
    assert conditions(root).throttled == "5 times"
    assert conditions(root).mhz == [2596.1]


@pytest.mark.parametrize(
    ("kernel", "told", "board", "cpuinfo", "sign"),
    [
        ("x86_64", "aarch64", "", "", "the kernel runs on x86_64, the process is told aarch64"),
        ("aarch64", "x86_64", "", "", "the kernel runs on aarch64"),
        ("aarch64", "aarch64", "linux,dummy-virt", "", "the board names an emulator"),
        ("x86_64", "x86_64", "", "model name : QEMU Virtual CPU version 2.5+", "processor names an emulator"),
    ],
)
def test_an_emulated_processor_is_noticed(tmp_path, kernel, told, board, cpuinfo, sign) -> None:
    root = machine(tmp_path, {"proc/sys/kernel/arch": kernel})
    assert sign in "; ".join(emulation(root, told, board, cpuinfo))


def test_a_process_that_a_qemu_runs_is_noticed(tmp_path) -> None:
    (tmp_path / "proc/thread-self").mkdir(parents=True)
    (tmp_path / "proc/thread-self/exe").symlink_to("/usr/bin/qemu-aarch64-static")
    assert emulation(tmp_path, "aarch64", "", "") == ["the process is run by a qemu"]


@pytest.mark.parametrize(
    ("kernel", "told"), [("aarch64", "armv7l"), ("x86_64", "i686"), ("riscv64", "riscv64")]
)
def test_what_the_processor_runs_itself_is_no_emulation(tmp_path, kernel, told) -> None:
    root = machine(tmp_path, {"proc/sys/kernel/arch": kernel})
    assert emulation(root, told, "Raspberry Pi 3 Model B", "model name : ARMv7") == []
