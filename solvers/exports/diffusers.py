"""`TableScheduler`: any coefficient table as a scheduler of diffusers pipelines (the extra `diffusers`).

A pipeline calls its network once for each entry of `timesteps` and gives the output to `step`, which returns the point
of the next call. These points are the rows of a table,

    x_i = a_i x_T + sum_{j<i} b_ij f_j + sum_k w_ik z_k,

so one `step` is one row, whatever the method: multi-stage and multistep methods alike.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor

from fastsample.models.foreign.diffusers_schedule import PREDICTION_TYPES
from fastsample.solvers.exports.conventions import from_output, timestep_map
from fastsample.solvers.table_file import TableFile, read_table

__all__ = ["TableScheduler"]


class TableScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # diffusers is untyped here
    """Plays a coefficient table inside a diffusers pipeline, one row per `step`.

    x_T and the predictions are kept in float32 (float64 for float64 samples), whatever the dtype of the samples, so the
    result is that of `fastsample.solvers.table.play` on the same network. The points between are the table's own:
    pipelines that change the sample between steps (inpainting) or start half-way (image-to-image) need another
    scheduler.

    Args:
        table: a table file, as its contents, its path or a `TableFile`; the config keeps its contents.
        prediction_type: what the pipeline's network returns: epsilon, sample, v_prediction, or flow_prediction
            (noise - data, on the linear path). By default flow_prediction on the linear path and epsilon elsewhere.
        num_train_timesteps: N of the network's timesteps.
        time_scale, time_shift: the network is called at time_scale t + time_shift, t on the table's path. By default
            N t - 1 on VP paths and N (1 - t) on the linear path.

    Attributes:
        timesteps: [NFE] float32, set by `set_timesteps`; entries may repeat.
        order: 1, one evaluation for each entry.

    Raises:
        ValueError: for a table that is none, an unknown prediction type or one that the path does not allow, or a path
            without a usual timestep.
    """

    order = 1

    def __init__(
        self,
        table: TableFile | dict[str, Any] | str | os.PathLike[str],
        prediction_type: str | None = None,
        num_train_timesteps: int = 1000,
        time_scale: float | None = None,
        time_shift: float | None = None,
    ) -> None:
        if isinstance(table, dict):
            file = TableFile.model_validate(table)
        else:
            file = table if isinstance(table, TableFile) else read_table(FilePath(table))
        path = file.noise_path
        if prediction_type is None:
            prediction_type = "flow_prediction" if path.name == "flow" else "epsilon"
        if prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"unknown prediction_type {prediction_type!r}; known: {', '.join(PREDICTION_TYPES)}")
        if prediction_type == "flow_prediction" and path.name != "flow":
            raise ValueError(f"flow_prediction is noise - data on the linear path, and this table's is {path.name}")
        if time_scale is None or time_shift is None:
            usual = timestep_map(path, num_train_timesteps)
            if usual is None:
                raise ValueError(f"the {path.name} path has no usual timestep: give time_scale and time_shift")
            time_scale, time_shift = usual
        if file.a[0] == 0:
            raise ValueError("the first row of this table does not depend on the noise")
        self.register_to_config(
            table=file.model_dump(mode="json"), prediction_type=prediction_type,
            num_train_timesteps=num_train_timesteps, time_scale=time_scale, time_shift=time_shift,
        )  # fmt: skip
        self._file, self._table, self._path = file, file.table, path
        have, sign = PREDICTION_TYPES[prediction_type]
        self._from_output = [(c_x, sign * c_f) for c_x, c_f in from_output(file, have)]
        self.set_timesteps()

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first point: that of the prior, times a_0 of the table."""
        return self._path.prior_std * self._file.a[0]

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Start a run; `timesteps` gets exactly NFE entries.

        Args:
            num_inference_steps: NFE of the table, or None.
            device: of `timesteps`.
            sigmas, mu: what flow pipelines propose as grid and as its shift. Only their number is read: the times are
                the table's.

        Raises:
            ValueError: for another number than NFE.
        """
        nfe = self._file.nfe
        for asked in (num_inference_steps, None if sigmas is None else len(sigmas)):
            if asked not in (None, nfe):
                raise ValueError(
                    f"this table is {self._file.solver} with {nfe} evaluations: "
                    f"num_inference_steps must be {nfe}, not {asked}"
                )
        times = self.config.time_scale * np.array(self._file.times) + self.config.time_shift
        self.timesteps = torch.tensor(times, dtype=torch.float32, device=device)
        self.num_inference_steps = nfe
        self._x: torch.Tensor | None = None
        self._point: torch.Tensor | None = None
        self._f: list[torch.Tensor] = []
        self._z: list[torch.Tensor] = []

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Called by pipelines before a run.

        Raises:
            ValueError: for another start than the first row, as in image-to-image.
        """
        if begin_index != 0:
            raise ValueError(f"a table starts from noise: it cannot begin at step {begin_index}")

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """The sample itself: networks of these pipelines take x_t."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """The point of the next evaluation; after the last, the result.

        Args:
            model_output: of the network at the last point, in the shape of `sample`, guidance included; channels of a
                learned variance after these are left out.
            timestep: not read: rows are counted, since times may repeat.
            sample: [batch, ...] the first point at the first step; later only its dtype is used.
            generator: of the noise of a stochastic table.
            return_dict: a SchedulerOutput instead of a tuple.

        Raises:
            ValueError: for one step too many.
        """
        i, table = len(self._f), self._table
        if i == table.nfe:
            raise ValueError(f"all {i} steps are made: call set_timesteps before the next run")
        if self._x is None or self._point is None:
            self._point = sample.to(torch.promote_types(sample.dtype, torch.float32))
            self._x = self._point / float(table.a[0])
        c_x, c_f = self._from_output[i]
        f = c_f * model_output[:, : sample.shape[1]].to(self._point.dtype)  # learned variances follow it
        self._f.append(f if c_x == 0 else c_x * self._point + f)
        point = float(table.a[i + 1]) * self._x
        for j in np.flatnonzero(table.b[i + 1, : i + 1]):
            point = point + float(table.b[i + 1, j]) * self._f[j]
        for k in np.flatnonzero(table.w[i + 1]):
            while len(self._z) <= k:
                self._z.append(randn_tensor(point.shape, generator, point.device, point.dtype))
            point = point + float(table.w[i + 1, k]) * self._z[k]
        self._point = point
        out = point.to(sample.dtype)
        return SchedulerOutput(prev_sample=out) if return_dict else (out,)

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """alpha x_0 + sigma eps at the network's timesteps [batch]."""
        times = [(float(step) - self.config.time_shift) / self.config.time_scale for step in timesteps]
        shape = (-1, *[1] * (original_samples.ndim - 1))
        alpha = torch.tensor([self._path.alpha(t) for t in times]).to(original_samples).reshape(shape)
        sigma = torch.tensor([self._path.sigma(t) for t in times]).to(original_samples).reshape(shape)
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """`add_noise` under the name that flow pipelines call."""
        return self.add_noise(sample, noise, timestep)
