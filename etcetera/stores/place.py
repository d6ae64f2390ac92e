"""Where requests go, as far as messages speak of it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_SHORTEST_SECRET = 4
"""Characters."""
_MESSAGE_LENGTH = 300
"""Characters of a server's message that are shown."""
_LOOKED_AT = 4096
"""Characters of it that are looked at more closely."""
_QUERY = re.compile(r"\?\S+")
"""Of a URL, whole or not: signatures stand there."""
_USER = re.compile(r"//[^/\s]*@")
"""And password, in a URL."""
_KEY_LIKE = re.compile(
    r"\b(?:AKIA|ASIA|AIDA|AROA|GOOG)[A-Z0-9]{12,}\b|\bya29\.[\w.-]+|\b1//[\w-]{20,}|"
    r"\beyJ[\w-]+\.[\w.-]+|(?i:\b(?:credential|signature|token)=\S+)"
)


@dataclass(slots=True)
class Place:
    """Where requests go, as far as messages speak of it."""

    url: str
    bucket: str
    endpoint: str = ""
    """Scheme, host and port."""
    login: str = ""
    """What to do where credentials are needed and there are none, if that is not the usual."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What no message may show."""

    def keep_secret(self, *texts: str | None) -> None:
        """Show none of *texts* from now on."""
        # Shorter ones are toys, and stand in any word.
        long = (text for text in texts if text and len(text) >= _SHORTEST_SECRET)
        new = dict.fromkeys(text for text in long if text not in self.secrets)
        # The longest ones first: one may be a part of another.
        self.secrets = tuple(sorted((*self.secrets, *new), key=len, reverse=True))

    def show(self, text: object) -> str:
        """Return *text* on one line, without control characters, keys and secrets."""
        line = str(text)
        for secret in self.secrets:
            line = line.replace(secret, "***")
        if len(line) > _LOOKED_AT:
            # Not within a word: half a key looks like none.
            line = line[:_LOOKED_AT].rsplit(maxsplit=1)[0] + "…"
        line = _KEY_LIKE.sub("***", _USER.sub("//***@", _QUERY.sub("?***", line)))
        line = "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode()
            for character in line
        )
        return line if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH]}…"

    def cause(self, error: BaseException) -> BaseException | None:
        """Return *error*, to be raised from, unless it or what led to it holds what is masked."""
        return error if all(self.show(one) == str(one) for one in _chain(error)) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and everything that a traceback may show with it."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
