"""Parts of a user agent, by the library ua-parser (the extra `[ua]`).

The values are those of the Java library Yauaa, which Data Prep uses, for common agents; for rare
ones they differ.
"""

from functools import lru_cache
from typing import Any

from engine.mapping.expression.functions.table import Table

TABLE = Table("User Agent")
LONGEST = 2000  # characters of an agent that are read
_CONSOLES = ("PlayStation", "Xbox", "Nintendo")
_DESKTOPS = ("Windows", "Mac OS X", "Linux", "Ubuntu", "Chrome OS", "Fedora", "Debian", "FreeBSD")


def is_installed() -> bool:
    """Whether the library is there."""
    try:
        import ua_parser  # noqa: F401 - an extra
    except ModuleNotFoundError:
        return False
    return True


@lru_cache(4096)
def _parsed(agent: str) -> Any:
    from ua_parser import parse

    return parse(agent[:LONGEST])


def _version(part: Any, *names: str) -> str:
    return ".".join(
        value for value in (getattr(part, name, None) for name in names) if value is not None
    )


def _agent_name(agent: str) -> str:
    part = _parsed(agent).user_agent
    name = part.family if part else "Unknown"
    return name.removeprefix("Mobile ").removesuffix(" Mobile").removesuffix(" WebView")


def _os_name(agent: str) -> str:
    part = _parsed(agent).os
    return part.family if part else "Unknown"


def _os_version(agent: str) -> str:
    return _version(_parsed(agent).os, "major", "minor", "patch", "patch_minor") or "??"


@TABLE.define("ua_os_name(USER_AGENT: text)", "text", 'ua_os_name("Mozilla/5.0 …")')
def ua_os_name(agent: str) -> str:
    """The name of the operating system."""
    return _os_name(agent)


@TABLE.define(
    "ua_os_version_major(USER_AGENT: text)",
    "text",
    'ua_os_version_major("Mozilla/5.0 …")',
    "ua_os_version_majors",
)
def ua_os_version_major(agent: str) -> str:
    """The name of the operating system and the first number of its version."""
    return f"{_os_name(agent)} {_version(_parsed(agent).os, 'major') or '??'}"


@TABLE.define("ua_os_version(USER_AGENT: text)", "text", 'ua_os_version("Mozilla/5.0 …")')
def ua_os_version(agent: str) -> str:
    """The version of the operating system."""
    return _os_version(agent)


@TABLE.define("ua_os_name_version(USER_AGENT: text)", "text", 'ua_os_name_version("Mozilla/5.0 …")')
def ua_os_name_version(agent: str) -> str:
    """The name and the version of the operating system."""
    return f"{_os_name(agent)} {_os_version(agent)}"


@TABLE.define("ua_agent_version(USER_AGENT: text)", "text", 'ua_agent_version("Mozilla/5.0 …")')
def ua_agent_version(agent: str) -> str:
    """The version of the browser."""
    part = _parsed(agent).user_agent
    return _version(part, "major", "minor", "patch", "patch_minor") or "??"


@TABLE.define(
    "ua_agent_version_major(USER_AGENT: text)", "text", 'ua_agent_version_major("Mozilla/5.0 …")'
)
def ua_agent_version_major(agent: str) -> str:
    """The name of the browser and the first number of its version."""
    return f"{_agent_name(agent)} {_version(_parsed(agent).user_agent, 'major') or '??'}"


@TABLE.define("ua_agent_name(USER_AGENT: text)", "text", 'ua_agent_name("Mozilla/5.0 …")')
def ua_agent_name(agent: str) -> str:
    """The name of the browser."""
    return _agent_name(agent)


@TABLE.define("ua_device_class(USER_AGENT: text)", "text", 'ua_device_class("Mozilla/5.0 …")')
def ua_device_class(agent: str) -> str:
    """The class of the device, as Desktop, Phone, Tablet, TV, Robot."""
    device = _parsed(agent).device
    family = device.family if device else ""
    if family == "Spider":
        return "Robot"
    if any(name in agent for name in _CONSOLES):
        return "Game Console"
    if "TV" in agent.replace("AppleTV", "TV"):
        return "TV"
    if "iPad" in agent or ("Android" in agent and "Mobile" not in agent):
        return "Tablet"
    if "iPhone" in agent or "Android" in agent:
        return "Phone"
    return "Desktop" if _os_name(agent) in _DESKTOPS else "Unknown"
