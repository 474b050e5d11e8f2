"""Everything an operator can set: one frozen object, from `REFINE_*` and the command line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.api_keys import Limits, parse_limits

CompileMode = Literal["off", "background", "full"]
Tuning = Literal["off", "kernels", "max"]
DtypeName = Literal["auto", "float32", "float16", "bfloat16"]
VerifyMode = Literal["sizes", "full"]
LogFormat = Literal["console", "json"]


_ORIGIN = re.compile(r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


def _known_limits(text: str) -> str:
    parse_limits(text)
    return text


def _exact_origins(text: str) -> str:
    for origin in _listed(text):
        if not _ORIGIN.fullmatch(origin):
            raise ValueError("each must be exact, such as https://canvas.example; no * and no path")
    return text


class EngineSettings(BaseModel):
    """What an engine process is started with; it travels on its command line, so no secrets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = "pocket"
    models: tuple[str, ...] = ()
    catalog: str = ""
    verify: VerifyMode = "sizes"
    styles: str = ""
    device: str = "auto"
    dtype: DtypeName = "auto"
    max_batch: int = 0
    max_waiting: int = 64
    max_waiting_per_caller: int = 16
    num_threads: int = 0
    compile: CompileMode = "off"
    tune: Tuning = "kernels"
    warmup_shapes: tuple[tuple[int, int], ...] = ()
    cache_dir: str = ""
    log_format: LogFormat = "console"

    @property
    def package_dir(self) -> Path:
        """Where compiled forwards are kept: those of one tuning."""
        return Path(self.cache_dir) / self.tune


_RENAMED = {
    "REFINE_MAX_BODIES_BYTES": "REFINE_BODY_BUDGET_BYTES",
    "REFINE_WRONG_KEYS_PER_MINUTE": "REFINE_FAILED_AUTH_PER_MINUTE",
    "REFINE_HOT_SHAPES": "REFINE_WARMUP_SHAPES",
    "REFINE_OPEN_METRICS": "REFINE_METRICS_NO_AUTH",
    "REFINE_DRAIN_S": "REFINE_DRAIN_TIMEOUT_S",
}


class Settings(BaseSettings):
    """The service's settings. The descriptions become `docs/configuration.md`."""

    model_config = SettingsConfigDict(env_prefix="REFINE_", frozen=True, extra="ignore")

    host: str = Field(
        "127.0.0.1", description="Address to listen on; others than loopback need keys"
    )
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    api_keys: SecretStr = Field(
        SecretStr(""),
        description="Bearer keys, comma-separated; without any, only loopback is served",
    )
    keys_file: Path | None = Field(
        None,
        description="File of keys, lines of `id:sha256[:limits]`, looked at every second; "
        "see `instant-refine keys`",
    )
    key_limits: Annotated[str, AfterValidator(_known_limits)] = Field(
        "concurrent=16",
        description="What each key may have at a time, unless its line says otherwise; "
        "`rate=10/s` (or `/min`, `/h`) bounds how often it may ask, `sockets=4` replaces "
        "`REFINE_MAX_SOCKETS_PER_KEY`",
    )
    failed_auth_per_minute: int = Field(
        60,
        ge=1,
        description="Wrong keys that an address may show in a minute; more are answered 429",
    )
    insecure_no_auth: bool = Field(
        default=False, description="Serve other machines without any key"
    )
    allowed_hosts: str = Field(
        "",
        description="Names besides this machine's own that a Host header may hold while there are "
        "no keys, comma-separated",
    )
    allowed_origins: Annotated[str, AfterValidator(_exact_origins)] = Field(
        "",
        description="Origins of pages besides the service's own that may call the API and open "
        "`/v1/realtime`, such as `https://canvas.example`, comma-separated",
    )
    max_sockets: int = Field(
        64,
        ge=1,
        description="Sockets of `/v1/realtime` that may be open; more are closed with 1013",
    )
    max_sockets_per_key: int = Field(16, ge=1, description="The same for the sockets of one key")
    model: str = Field(
        "pocket",
        description="Checkpoint: a catalogue name, a folder, or a hub id `ORG/NAME[@REVISION]`",
    )
    models: str = Field(
        "",
        description="Several checkpoints, comma-separated, in the place of `REFINE_MODEL`: chosen "
        "by `modelId`, the first by default",
    )
    catalog: Path = Field(
        Path("~/.config/instant-refine/catalog.toml"),
        description="A TOML file with checkpoints of your own, see `instant-refine models add`",
    )
    verify: VerifyMode = Field(
        "sizes",
        description="What a start holds against a checkpoint's manifest: the `sizes` of its files, "
        "or in `full` their sha256 too, see `instant-refine models check`",
    )
    styles: str = Field(
        "", description="A TOML file with styles of your own, see `models/styles/styles.toml`"
    )
    device: str = Field(
        "auto",
        min_length=1,
        description="`auto` (CUDA where there is one), `cpu`, `cuda`, `cuda:1`, ...; several, "
        "separated by commas, get an engine each",
    )
    dtype: DtypeName = Field(
        "auto",
        description="`float32`, `float16` or `bfloat16`; `auto`: float16 on CUDA, on a CPU "
        "bfloat16 where the processor has matrix units for it, else float32",
    )
    compile: CompileMode = Field(
        "off",
        description="Compiled forwards, and CUDA graphs on CUDA: `background` serves eager until "
        "they are there, `full` makes those of the hot shapes before it is ready, `off` none",
    )
    tune: Tuning = Field(
        "kernels",
        description="How a compiled forward gets its kernels: those of attention and of cuDNN's "
        "convolutions by timing them on this device (`kernels`), also all others, which takes many "
        "times as long (`max`: inductor's max-autotune), or by the libraries' rules (`off`)",
    )
    cache_dir: Path = Field(
        Path("~/.cache/instant-refine"),
        description="Where compiled forwards are kept; see `instant-refine warm`",
    )
    warmup_shapes: str = Field(
        "512x512",
        pattern=r"^\s*\d+x\d+(\s*,\s*\d+x\d+)*\s*$",
        description="Shapes (HEIGHTxWIDTH, comma-separated) that are made ready at start; others "
        "on demand",
    )
    max_batch: int = Field(
        0,
        ge=0,
        le=64,
        description="Rows of 512 x 512 that share a UNet call, of larger shapes as many as cost "
        "the same; 0: one for each of torch's threads on a CPU, up to 8; 8 on CUDA",
    )
    num_threads: int = Field(
        0, ge=0, description="torch's threads in an engine; 0: the cores, shared among the engines"
    )
    ray: str = Field(
        "",
        description="`local`, `auto` or the address of a Ray cluster to run engines on; none: they "
        "run on this machine, without Ray",
    )
    ray_min_engines: int = Field(1, ge=1, description="Engines that Ray keeps running")
    ray_max_engines: int = Field(1, ge=1, description="Engines that Ray starts under load, at most")
    ray_gpus_per_engine: float = Field(
        0.0, ge=0, description="GPUs of an engine on Ray, a fraction of one allowed; 0: the CPU"
    )
    ray_cpus_per_engine: float = Field(1.0, gt=0, description="Cores of an engine on Ray")
    queue_size: int = Field(64, ge=1, description="Requests that may wait; more are answered 503")
    metrics_no_auth: bool = Field(
        default=False, description="Answer `/metrics` without a key, for a scraper in the same net"
    )
    queue_per_key: int = Field(
        16, ge=1, description="Requests of one key that may wait; more are answered 429"
    )
    deadline_s: float = Field(
        30.0, gt=0, description="Seconds within which a refine must be answered, else 504"
    )
    live_deadline_s: float = Field(
        15.0, gt=0, description="The same for `/generations-lcm`, the live-canvas pass"
    )
    upscale_deadline_s: float = Field(
        120.0, gt=0, description="The same for `/lcm-upscale`, whose pictures are up to 25 tiles"
    )
    drain_timeout_s: float = Field(
        25.0, ge=0, description="Seconds that running requests get after the first SIGTERM"
    )
    drain_delay_s: float = Field(
        0.0,
        ge=0,
        description="Seconds to keep refusing with 503 before closing, for load balancers",
    )
    max_body_bytes: int = Field(12 << 20, gt=0, description="Largest request body, else 413")
    body_budget_bytes: int = Field(
        128 << 20,
        gt=0,
        description="Bytes of bodies that may be held until their pictures are decoded, and of "
        "frames on sockets until they are answered, of one key half of that; more are answered "
        "503, or 429",
    )
    decode_isolation: Literal["thread", "process"] = Field(
        "thread",
        description="Where pictures are decoded: on `thread`s of the front, or each in a `process` "
        "with 1 GiB, 5 s of CPU and 15 s in all, which a fault of a codec cannot leave",
    )
    jpeg_quality: int = Field(90, ge=1, le=100, description="Quality of JPEG and WebP answers")
    gpu_price_per_hour: float = Field(
        0.0,
        ge=0,
        description="Dollars that an hour of the device costs you, told as `cost`; 0 tells none",
    )
    embed_parameters: bool = Field(
        default=True,
        description="Write prompt, seed and the other parameters into the picture's EXIF",
    )
    log_format: LogFormat = Field("console", description="`console` or `json`")

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_names(cls, values: Any) -> Any:
        """Raise ValueError for a variable under its old name, which would be ignored otherwise."""
        given = {name.upper() for name in os.environ}  # pydantic ignores their case, too
        for old, new in _RENAMED.items():
            if old in given:
                raise ValueError(f"{old} has a new name: set {new} instead")
        return values

    def keys(self) -> list[str]:
        """Return the bearer keys of the environment, in its order."""
        return _listed(self.api_keys.get_secret_value())

    @property
    def needs_key(self) -> bool:
        """Return whether a caller has to show a key."""
        return bool(self.keys()) or self.keys_file is not None

    def limits(self) -> Limits:
        """Return what a key may have whose line says nothing else."""
        return parse_limits(self.key_limits)

    def hosts(self) -> frozenset[str]:
        """Return the names that a Host header may hold besides this machine's own."""
        return frozenset(_listed(self.allowed_hosts.lower()))

    def origins(self) -> frozenset[str]:
        """Return the origins of pages that may open sockets besides the service's own."""
        return frozenset(_listed(self.allowed_origins.lower()))

    def shapes(self) -> list[tuple[int, int]]:
        """Return the hot shapes as (height, width)."""
        pairs = (shape.split("x") for shape in self.warmup_shapes.split(","))
        return [(int(height), int(width)) for height, width in pairs]

    def devices(self) -> list[str]:
        """Return the devices that get an engine each."""
        return [device.strip() for device in self.device.split(",")]

    def model_names(self) -> tuple[str, ...]:
        """Return the checkpoints to load, the default first."""
        names = [name.strip() for name in self.models.split(",") if name.strip()]
        return tuple(dict.fromkeys(names)) or (self.model,)

    def own_catalog(self) -> str:
        """Return the path of the user's own catalogue."""
        return str(self.catalog.expanduser())

    def engines(self) -> list[EngineSettings]:
        """Return the part that an engine process needs, for each device."""
        devices = self.devices()
        shared = max(1, (os.cpu_count() or 1) // len(devices)) if len(devices) > 1 else 0
        return [
            EngineSettings(
                model=self.model_names()[0],
                models=self.model_names(),
                catalog=self.own_catalog(),
                verify=self.verify,
                styles=self.styles,
                device=device,
                dtype=self.dtype,
                max_batch=self.max_batch,
                max_waiting=max(1, self.queue_size // len(devices)),
                max_waiting_per_caller=max(1, self.queue_per_key // len(devices)),
                num_threads=self.num_threads or shared,
                compile=self.compile,
                tune=self.tune,
                warmup_shapes=tuple(self.shapes()),
                cache_dir=str(self.cache_dir.expanduser()),
                log_format=self.log_format,
            )
            for device in devices
        ]


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
