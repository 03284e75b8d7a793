"""Reloads the settings file while the server runs: takes over what can change, and names what needs a restart."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from sfu import bridge
from sfu.errors import ConfigError
from sfu.settings import settings_file
from sfu.settings.config import PREFIX, Config, settings
from sfu.workers.workers import Workers

log = logging.getLogger("sfu")


class Reload:
    """`config` is what the server runs with, `named` what `--env-file` named, `env` the environment without it."""

    def __init__(self, config: Config, named: Path | None, env: Mapping[str, str], workers: Workers) -> None:
        self._config, self._workers = config, workers
        self._file, self._env = settings_file.source(named, env)

    def reload(self) -> None:
        """Reads the file and logs every difference. If the file is wrong, everything stays as it is."""
        if self._file is None:
            log.info("settings_kept reason=%r", "the server was started without a settings file")
            return
        env = dict(self._env)
        try:
            settings_file.add(self._file, env, strict=True)
            new = Config.from_env(env)
        except ConfigError as error:
            log.error("settings_kept reason=%r", str(error))
            return
        before = {setting.attribute: getattr(self._config, setting.attribute) for setting in settings()}
        changed = self._config.adopt(new)
        for setting in settings():
            old, value = before[setting.attribute], getattr(new, setting.attribute)
            if old == value:
                continue
            what = "setting_changed" if setting.attribute in changed else "setting_needs_restart"
            shown = "" if setting.secret else f" old={_text(old)} new={_text(value)}"
            log.log(logging.INFO if setting.live else logging.WARNING, "%s name=%s%s", what, setting.variable, shown)
        log.info("settings_reloaded file=%s changed=%d", self._file, len(changed))
        if "log_level" in changed:
            self._set_log_level(self._config.log_level)

    def _set_log_level(self, level: str) -> None:
        os.environ[f"{PREFIX}LOG_LEVEL"] = level  # for workers that are restarted
        logging.getLogger().setLevel(level.upper())
        for worker in range(self._config.workers):
            self._workers.send(worker, bridge.LogLevel(level))


def _text(value: object) -> str:
    """A value of a setting, much as it is written in the file."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
