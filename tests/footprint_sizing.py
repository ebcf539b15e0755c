# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""`kvsim footprint --device`, for footprint_cli.sh: against arithmetic by hand, and against the peaks of
sequences that are one token longer or one more."""
import json
import os
import subprocess

GIB = 1 << 30


def footprint(prompt, *arguments, model="llama-3.1-8b", generate=100):
    done = subprocess.run([os.environ["KVSIM"], "footprint", "--model", model, "--prompt", str(prompt),
                           "--generate", str(generate), "--json", *arguments],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def by_hand():
    """Llama 3.1 8B: 8,030,261,248 parameters in bf16; 32 layers of 8 heads of 128, keys and values;
    activations of 8192 tokens: 4 hidden + 2 intermediate, in bf16. NVIDIA L40S: 48 GB as sold."""
    found = footprint(8000, "--device", "l40s", "full")
    memory = found["memory_per_device"]["memory_bytes"]
    room = 0.9 * memory - 2 * 8030261248 - 8192 * (4 * 4096 + 2 * 14336) * 2 - GIB
    token = 32 * 8 * 128 * 2 * 2
    assert abs(found["memory_per_device"]["kv_bytes"] - room) < 1, (found, room)
    point = found["points"][0]
    assert point["batch"] == room // (8100 * token), point
    assert point["context"] == min(131072, room // token) and not (
        point["context_is_models"] and room // token < 131072), point
    four = footprint(8000, "--device", "l40s", "--tensor-parallel", "4", "full")
    room = 0.9 * memory - 2 * 8030261248 / 4 - 8192 * (4 * 4096 + 2 * 14336) * 2 - GIB
    assert four["points"][0]["batch"] == 4 * room // (8100 * token), four
    # 8 heads on 16 devices: every device has one, so there are two copies of each; on 3 devices one has 3
    for devices, heads in ((16, 1), (3, 3)):
        many = footprint(8000, "--device", "l40s", "--tensor-parallel", str(devices), "full")
        room = 0.9 * memory - 2 * 8030261248 / devices - 8192 * (4 * 4096 + 2 * 14336) * 2 - GIB
        assert many["points"][0]["batch"] == room // (8100 * token * heads / 8), many
        assert many["kv_copies"] == devices * heads / 8, many
    # DeepSeek-V3: one latent of 512 + 64 numbers in each of 61 layers, whole on every device
    deep = footprint(8000, "--device", "h200", "--tensor-parallel", "8", "full", model="deepseek-v3")
    room = deep["memory_per_device"]["kv_bytes"]
    assert deep["points"][0]["batch"] == room // (8100 * 61 * 576 * 2), deep


def by_trying():
    """The longest context fits and one token more does not, by the calculator itself."""
    for policy in ("full", "{snapkv: {keep: 0.3, preset: prulong}}", "streaming:sinks=4,window=512"):
        for chunk in ("1024", "whole"):
            arguments = ["--device", "rtx-4090", "--chunk", chunk, policy]
            found = footprint(4000, *arguments)
            room, point = found["memory_per_device"]["kv_bytes"], found["points"][0]
            at = footprint(point["context"] - 100, *arguments)["points"][0]["kv_bytes_peak"]
            assert at == point["context_bytes"] <= room, (policy, chunk, point)
            if point["context_is_models"]:
                assert point["context"] == 131072
            else:
                more = footprint(point["context"] - 99, *arguments)["points"][0]["kv_bytes_peak"]
                assert more > room, (policy, chunk, point)
            assert point["batch"] == room // point["kv_bytes_peak"]


def nothing_fits():
    found = footprint(8000, "--device", "rtx-4090", "full", model="llama-3.1-70b")
    assert found["memory_per_device"]["kv_bytes"] < 0
    assert found["points"][0]["batch"] == found["points"][0]["context"] == 0, found


by_hand()
by_trying()
nothing_fits()
