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
    activations of 8192 tokens: 4 hidden + 2 intermediate, in bf16. NVIDIA L40S."""
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
    text = plain("llama-3.1-70b", 8000, "l40s")
    # 0.9 of 46,068 MiB, 40.49 GiB, less 131.42 of weights, 1.375 of activations (8192 tokens) and 1 of the runtime
    assert "=  -93.30 GiB  left for the KV cache\n" in text and "--tensor-parallel divides" in text, text


def plain(model, prompt, device):
    return subprocess.run([os.environ["KVSIM"], "footprint", "--model", model, "--prompt", str(prompt),
                           "--generate", "100", "--device", device, "full"],
                          capture_output=True, text=True, check=True).stdout


def too_long():
    """No sequence of 200100 tokens is in a batch of a model that takes 131072."""
    found = footprint(200000, "--device", "h200", "full")
    assert found["points"][0]["batch"] == 0 and found["points"][0]["context"] == 131072, found
    assert found["memory_per_device"]["kv_bytes"] > found["points"][0]["kv_bytes_peak"]
    text = plain("llama-3.1-8b", 200000, "h200")
    assert "the model takes at most 131072 tokens, so none of 200100 is in a batch" in text, text
    assert footprint(130972, "--device", "h200", "full")["points"][0]["batch"] > 0
    assert "takes at most" not in plain("llama-3.1-8b", 130972, "h200")


GEMMA = 27016000000  # parameters: arXiv 2503.19786, table 1
JAMBA = 51570323328  # the tensors of Jamba v0.1
SHAPES = {
    # 62 layers, every sixth of which sees all (10) and the others 1024 tokens: 2 x 16 heads x 128 x 2
    # bytes. In chunks of 1024 the largest step is the last whole chunk, to token 19456: its first
    # query still sees the 1023 tokens before it. 4 x 5376 + 2 x 21504 activations.
    "gemma-3-27b": (2 * GEMMA, 8192 * (10 * 19456 + 52 * (1023 + 1024)), 4 * 5376 + 2 * 21504, 131072),
    # 4 attention layers of 2 x 8 heads x 128 x 2 bytes; 28 states of 8192 x 16 x 4 and 8192 x 3 x 2.
    "jamba-like": (2 * JAMBA, 4 * 4096 * 20100 + 28 * (8192 * 16 * 4 + 8192 * 3 * 2), None, 262144)}


def three_shapes():
    """Sliding windows, states and latents on three devices, by hand."""
    for model, (weights, peak, activations, longest) in SHAPES.items():
        for device, mib in (("a100-80", 81920), ("h200", 143771), ("mi300x", 196592)):  # as drivers say
            found = footprint(20000, "--device", device, "--chunk", "1024", "full", model=model)
            parts, point = found["memory_per_device"], found["points"][0]
            assert parts["memory_bytes"] == mib << 20, (device, parts)
            assert abs(parts["weight_bytes"] / weights - 1) < 0.001, (model, parts)
            if activations is not None:
                assert parts["activation_bytes"] == 2 * 8192 * activations, (model, parts)
            room = (0.9 * parts["memory_bytes"] - parts["weight_bytes"] - parts["activation_bytes"] - GIB)
            assert abs(parts["kv_bytes"] - room) < 1, (model, parts)
            assert point["kv_bytes_peak"] == peak, (model, point)
            assert point["batch"] == max(0, room // peak), (model, device, point)
            assert point["context"] == (longest if room > 0 else 0), (model, device, point)
    # The whole prompt at once holds it in all layers of Gemma: 62 x 8192 bytes per token.
    found = footprint(20000, "--device", "a100-80", "full", model="gemma-3-27b")
    room, point = found["memory_per_device"]["kv_bytes"], found["points"][0]
    assert point["kv_bytes_peak"] == 62 * 8192 * 20000 and point["batch"] == room // (62 * 8192 * 20000)
    assert point["context"] == room // (62 * 8192) + 100, point
    # DeepSeek-V3: a latent of 512 and a rotary key of 64 per token and layer, 61 layers, bf16; its 671
    # GB of weights fit none of the three alone.
    for device in ("a100-80", "h200", "mi300x"):
        found = footprint(20000, "--device", device, "full", model="deepseek-v3")
        assert found["points"][0]["kv_bytes_peak"] == 61 * (512 + 64) * 2 * 20100, found
        assert found["points"][0]["batch"] == found["points"][0]["context"] == 0, found


by_hand()
by_trying()
nothing_fits()
too_long()
three_shapes()
