# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The kvsim authors
"""Records attention for kvsim, beside your own model. One file; needs numpy and h5py.

    from kvsim_record import Recorder

    with Recorder("recall.h5", model="my-model", layers=4, heads=8, kv_heads=4, head_dim=16) as r:
        r.add_example(task="recall", tokens=ids, turns=[(query, answer, end)], full_score=1.0,
                      evidence=[(0, start, stop)], q=q, k=k, v=v)

Arrays are numpy's: q [layers, heads, rows, head_dim], k and v [layers, kv_heads, tokens, head_dim],
both after the position embedding; probs [layers, heads, rows, tokens]. Where all layers at once are
too much for memory, write them one by one:

        with r.begin_example(task="recall", tokens=ids, turns=...) as example:
            for number in range(layers):
                example.layer(number, q=..., k=..., v=...)      # without the first axis

What is wrong is refused by a ValueError that says what was expected. The file appears under its name
when it is complete: an interrupted recording leaves FILE.part. `kvsim trace verify FILE` checks all of
it again. docs/trace-format.md describes the format.

record_hugging_face, at the end, records a Hugging Face model; it needs torch and transformers.
"""
import os

import h5py
import numpy as np

MODES = ("single", "multi_turn", "multi_request")
CHUNK_BYTES = 1 << 20  # HDF5 chunks: large enough to compress well, small enough to read in pieces


def _need(condition, message):
    if not condition:
        raise ValueError(message)


class Recorder:
    """A file of recorded attention.

    model     name of the model, free text
    layers, heads, kv_heads, head_dim
              its shape; query heads h*g ... h*g+g-1 share KV head h, g = heads / kv_heads
    scale     factor of q.k before the softmax, if it is not 1/sqrt(head_dim)
    dtype     float16 or float32: how arrays are stored
    compression, level
              a filter of h5py and its level; None: contiguous, which kvsim maps without copying
    probs_quantum_bits
              rounds probs to multiples of 2^-bits, which compresses better
    """

    def __init__(self, path, *, model, layers, heads, kv_heads, head_dim, scale=None,
                 dtype="float16", compression="gzip", level=4, probs_quantum_bits=None):
        for name, value in (("layers", layers), ("heads", heads), ("kv_heads", kv_heads),
                            ("head_dim", head_dim)):
            _need(int(value) == value and value > 0, f"{name} is {value}, expected a count above 0")
        _need(heads % kv_heads == 0, f"heads {heads} is not a multiple of kv_heads {kv_heads}")
        _need(scale is None or scale > 0, f"scale is {scale}, expected a factor above 0")
        self.layers, self.heads, self.kv_heads, self.head_dim = layers, heads, kv_heads, head_dim
        self.dtype = np.dtype(dtype)
        _need(self.dtype in (np.float16, np.float32), f"dtype is {dtype}, expected float16 or float32")
        self.storage = {} if compression is None else {
            "compression": compression, "compression_opts": level, "shuffle": True}
        self.quantum_bits = probs_quantum_bits
        self.path, self.part = os.fspath(path), os.fspath(path) + ".part"
        self.file = h5py.File(self.part, "w")
        attributes = {"format": "kvsim.attention", "version": 1, "model": model,
                      "num_layers": layers, "num_heads": heads, "num_kv_heads": kv_heads,
                      "head_dim": head_dim}
        if scale is not None:
            attributes["scale"] = float(scale)
        if probs_quantum_bits is not None:
            attributes["probs_quantum_bits"] = int(probs_quantum_bits)
        self.file.attrs.update(attributes)
        self.file.create_group("examples")

    def begin_example(self, *, task, tokens, turns, full_score, mode="single", evidence=(),
                      query_pos=None, context_len=None, prompt_len=None, context_id=None,
                      modality=None, name=None):
        """Begins an example; use it in a with statement and give it each layer.

        task        name of the task
        tokens      token ids [N]
        turns       (query_start, answer_start, answer_end) of each turn
        full_score  the model's score with the full cache, 0 to 1
        mode        single, multi_turn or multi_request
        evidence    (turn, start, end): key positions that an answer depends on
        query_pos   ascending positions whose rows are recorded; all of them if not given
        context_len tokens before the first question, its query_start if not given
        prompt_len  tokens before the first answer, its answer_start if not given
        context_id  shared by the examples of a multi_request group that share a context
        modality    [N] 0 text, 1 image
        name        of the example; 0000, 0001 ... if not given
        """
        return Example(self, name or f"{len(self.file['examples']):04d}", task=task, tokens=tokens,
                       turns=turns, full_score=full_score, mode=mode, evidence=evidence,
                       query_pos=query_pos, context_len=context_len, prompt_len=prompt_len,
                       context_id=context_id, modality=modality)

    def add_example(self, *, q=None, k=None, v=None, probs=None, **about):
        """Adds an example with the arrays of all its layers; see begin_example for the rest."""
        arrays = {"q": q, "k": k, "v": v, "probs": probs}
        arrays = {name: np.asarray(a) for name, a in arrays.items() if a is not None}
        for name, array in arrays.items():
            _need(array.ndim == 4 and len(array) == self.layers,
                  f"{name} has shape {list(array.shape)}, expected {self.layers} layers first")
        with self.begin_example(**about) as example:
            for number in range(self.layers):
                example.layer(number, **{name: array[number] for name, array in arrays.items()})
        return example.name

    def close(self):
        """Completes the file and gives it its name."""
        if self.file:
            _need(len(self.file["examples"]), "no example was added")
            self.file.close()
            self.file = None
            os.replace(self.part, self.path)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.close()
        elif self.file:
            self.file.close()
            self.file = None


class Example:
    """An example that is being written, layer by layer; made by Recorder.begin_example."""

    def __init__(self, recorder, name, *, task, tokens, turns, full_score, mode, evidence, query_pos,
                 context_len, prompt_len, context_id, modality):
        self.recorder, self.name = recorder, name
        tokens = np.asarray(tokens, dtype=np.int64)
        total = self.total = len(tokens)
        turns = np.asarray(turns, dtype=np.int64).reshape(-1, 3)
        evidence = np.asarray(list(evidence), dtype=np.int64).reshape(-1, 3)
        rows = np.arange(total) if query_pos is None else np.asarray(query_pos, dtype=np.int64)
        _need(tokens.ndim == 1 and total > 0, "tokens is not a list of token ids")
        _need(len(turns) or prompt_len is not None, "without turns, prompt_len has to be given")
        context = int(turns[0, 0] if context_len is None else context_len)
        prompt = int(turns[0, 1] if prompt_len is None else prompt_len)
        self._check(tokens, turns, evidence, rows, context, prompt, mode, full_score, task)
        self.query_pos = rows
        self.group = recorder.file["examples"].create_group(name)
        self.group.attrs.update({"task": task, "mode": mode, "context_len": context,
                                 "prompt_len": prompt, "total_len": total,
                                 "full_score": float(full_score)})
        if context_id is not None:
            self.group.attrs["context_id"] = str(context_id)
        small = {"tokens": tokens, "turns": turns, "evidence": evidence, "query_pos": rows}
        for key, values in small.items():
            self.group.create_dataset(key, data=values.astype(np.int32))
        if modality is not None:
            modality = np.asarray(modality)
            _need(modality.shape == (total,) and np.isin(modality, (0, 1)).all(),
                  f"modality must be {total} values 0 (text) or 1 (image)")
            self.group.create_dataset("modality", data=modality.astype(np.uint8))
        self.written = {}

    def _check(self, tokens, turns, evidence, rows, context, prompt, mode, full_score, task):
        total = self.total
        _need(task and str(task).isprintable(), "task must be a name without control characters")
        _need(mode in MODES, f"mode is {mode!r}, expected one of {', '.join(MODES)}")
        _need(0 <= full_score <= 1, f"full_score is {full_score}, expected 0 to 1")
        _need(0 <= context <= prompt and 1 <= prompt <= total,
              f"context_len {context} and prompt_len {prompt} do not fit {total} tokens")
        _need(((tokens >= 0) & (tokens < 2 ** 31)).all(), "token ids must be 0 to 2^31-1")
        before = 0
        for i, (query, answer, end) in enumerate(turns):
            _need(before <= query <= answer <= end <= total and answer >= 1,
                  f"turn {i} is ({query}, {answer}, {end}), expected {before} <= query_start <= "
                  f"answer_start <= answer_end <= {total}")
            before = end
        if len(turns):
            _need(turns[0, 1] == prompt, f"the first answer starts at {turns[0, 1]}, but prompt_len "
                                         f"is {prompt}")
        for i, (turn, start, end) in enumerate(evidence):
            _need(0 <= turn < len(turns) and 0 <= start < end <= turns[turn, 2],
                  f"evidence {i} is ({turn}, {start}, {end}), expected a turn below {len(turns)} and "
                  f"0 <= start < end <= the end of its answer")
        _need(rows.ndim == 1 and len(rows) and rows[0] >= 0 and rows[-1] < total
              and (np.diff(rows) > 0).all(), f"query_pos must ascend from 0 to below {total}")

    def layer(self, number, *, q=None, k=None, v=None, probs=None):
        """Writes the arrays of one layer: as for add_example, without the first axis."""
        r, rows = self.recorder, len(self.query_pos)
        _need(0 <= number < r.layers, f"layer {number}, expected 0 to {r.layers - 1}")
        shapes = {"q": (r.heads, rows, r.head_dim), "k": (r.kv_heads, self.total, r.head_dim),
                  "v": (r.kv_heads, self.total, r.head_dim), "probs": (r.heads, rows, self.total)}
        for name, array in (("q", q), ("k", k), ("v", v), ("probs", probs)):
            if array is None:
                continue
            array = np.asarray(array)
            _need(array.shape == shapes[name], f"{name} of layer {number} has shape "
                  f"{list(array.shape)}, expected {list(shapes[name])}")
            if name == "probs":
                array = self._probabilities(number, array)
            self._dataset(name, shapes[name])[number] = self._stored(name, number, array)
            self.written.setdefault(name, set()).add(number)

    def _probabilities(self, number, probs):
        """Checks rows of probabilities, and rounds them if that was asked for."""
        probs = probs.astype(np.float64)
        beyond = np.arange(self.total)[None, :] > self.query_pos[:, None]
        _need((probs >= 0).all() and np.isfinite(probs).all(),
              f"probs of layer {number} hold numbers that are negative or not finite")
        _need(not probs[:, beyond].any(), f"probs of layer {number} are not 0 beyond the causal limit")
        worst = np.abs(probs.sum(axis=-1) - 1).max()
        _need(worst < 1e-3, f"a row of probs of layer {number} sums to 1 +- {worst:.2g}; a softmax in "
              "bfloat16 is too coarse: compute it in float32, or record q and k")
        bits = self.recorder.quantum_bits
        return probs if bits is None else np.round(probs * 2.0 ** bits) / 2.0 ** bits

    def _stored(self, name, number, array):
        with np.errstate(over="ignore"):
            stored = array.astype(self.recorder.dtype)
        _need(np.isfinite(stored).all(), f"{name} of layer {number} holds numbers that are not finite "
              f"or too large for {self.recorder.dtype}; Recorder(dtype='float32') holds more")
        return stored

    def _dataset(self, name, shape):
        if name not in self.group:
            storage = dict(self.recorder.storage)
            if storage:
                rows = CHUNK_BYTES // (shape[2] * self.recorder.dtype.itemsize)
                storage["chunks"] = (1, 1, max(1, min(shape[1], rows)), shape[2])
            self.group.create_dataset(name, (self.recorder.layers, *shape), self.recorder.dtype,
                                      **storage)
        return self.group[name]

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        layers, short = self.recorder.layers, None
        for name, numbers in self.written.items():
            if len(numbers) < layers:
                short = f"{name} was written for {len(numbers)} of {layers} layers"
        if kind is not None or short:
            del self.recorder.file["examples"][self.name]  # half an example is none
        _need(kind is not None or not short, short)


# --- Hugging Face models -----------------------------------------------------------------------------
# An example of a hook; needs torch and a transformers that has AttentionInterface and
# set_attn_implementation (tried with 5.23), which nothing above does.


def recorder_for(path, model, **settings):
    """A Recorder with the shape of a Hugging Face causal language model."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    settings.setdefault("scale", getattr(_first_attention(model), "scaling", None))
    return Recorder(path, model=config._name_or_path or config.model_type,
                    layers=config.num_hidden_layers, heads=heads,
                    kv_heads=getattr(config, "num_key_value_heads", None) or heads,
                    head_dim=head_dim, **settings)


def _first_attention(model):
    return next((m for m in model.modules() if getattr(m, "layer_idx", None) == 0
                 and hasattr(m, "q_proj")), None)


def record_hugging_face(recorder, model, **about):
    """Runs the model over about["tokens"] once and records q, k and v of every layer.

    The model's attention is replaced, for this one call, by a function that hands q, k and v (after
    the position embedding, before KV heads are repeated) to the recorder and then computes what
    transformers' own "sdpa" does. Only layers of full causal attention mean what kvsim takes them for:
    soft-capped or sliding-window layers are refused.

        model = AutoModelForCausalLM.from_pretrained(NAME, attn_implementation="sdpa")
        with recorder_for("recall.h5", model) as r:
            record_hugging_face(r, model, task="recall", tokens=ids, turns=[(a, b, c)], full_score=1.0)
    """
    import torch
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    with recorder.begin_example(**about) as example:
        rows = example.query_pos

        def attend(module, query, key, value, attention_mask, **kwargs):
            _need(not kwargs.get("softcap") and not kwargs.get("sliding_window"),
                  f"layer {module.layer_idx} has soft-capped or sliding-window attention")
            q, k, v = (t[0].float().cpu().numpy() for t in (query, key, value))
            example.layer(module.layer_idx, q=q[:, rows], k=k, v=v)
            return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)

        AttentionInterface.register("kvsim_record", attend)
        before = model.config._attn_implementation
        model.set_attn_implementation("kvsim_record")
        try:
            with torch.no_grad():
                tokens = torch.as_tensor(about["tokens"], device=model.device)[None]
                return model(tokens, use_cache=False)
        finally:
            model.set_attn_implementation(before)
