"""CUDA_VISIBLE_DEVICES=RR: which GPU each replica sees. The right values were seen in the reference."""

import pytest

from gatewayd.executor.devices import VARIABLE, gpu_count, take_turns


def seen(value: str, replica: int, total: int) -> str:
    environ = {VARIABLE: value}
    take_turns(environ, replica, lambda: total)
    return environ[VARIABLE]


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ("RR", ["0", "1", "2", "0"]),
        ("RR0:2", ["0", "1", "0"]),
        ("RR1:", ["1", "2", "1"]),
        ("RR1:9", ["1", "2", "1"]),
        ("RR-2:", ["1", "2", "1"]),
        ("RR0:3:2", ["0", "2", "0"]),
        ("RR1", ["1", "1"]),
        ("RR2,0", ["2", "0", "2"]),
        ("RR 0, 1", ["0", "1", "0"]),
        ("RRGPU-1,GPU-2", ["GPU-1", "GPU-2", "GPU-1"]),
    ],
)
def test_replicas_take_turns(value, devices):
    assert [seen(value, replica, 3) for replica in range(len(devices))] == devices


@pytest.mark.parametrize("value", ["", "0", "0,1", "0:2", "rr", "GPU-1", "NoDevFiles"])
def test_other_values_are_cudas_own(value):
    assert seen(value, 1, 3) == value


def test_without_the_variable_nothing_is_asked_and_none_is_set():
    environ: dict[str, str] = {}
    take_turns(environ, 0, lambda: pytest.fail("asked"))
    assert environ == {}


@pytest.mark.parametrize("value", ["RR", "RR1:", "RR0:2"])
def test_without_gpus_the_value_is_kept_and_the_log_says_so(value, caplog):
    assert seen(value, 1, 0) == value
    assert f"is {value}, but nvidia-smi lists no GPU" in caplog.text


def test_named_devices_need_no_list_of_those_that_are_there():
    environ = {VARIABLE: "RR4,5"}
    take_turns(environ, 1, lambda: pytest.fail("asked"))
    assert environ == {VARIABLE: "5"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("RR3:", "is RR3:: none of the GPUs 0 to 2 is chosen"),
        ("RR,", "is RR,: no device is named"),
        ("RRa:b", "is RRa:b: after RR a slice is wanted, such as 0:2"),
        ("RR1:2:3:4", "a slice is wanted"),
        ("RR::0", "a slice is wanted"),
    ],
)
def test_what_chooses_no_device_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        seen(value, 0, 3)


def test_gpus_are_those_that_nvidia_smi_lists(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g.5gb Device 0: (UUID: MIG-1)'\n"
        "echo 'GPU 1: A (UUID: GPU-2)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gpu_count() == 2

    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    assert gpu_count() == 0

    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert gpu_count() == 0
