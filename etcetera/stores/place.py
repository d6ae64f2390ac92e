"""Where requests go, as far as messages speak of it."""

import re
from dataclasses import dataclass, field

_MESSAGE_LENGTH = 300
"""Characters of a server's message that are shown."""
_QUERY = re.compile(r"\?\S+")
"""Of a URL, whole or not: signatures stand there."""
_USER = re.compile(r"//[^/\s]*@")
"""And password, in a URL."""
_KEY_LIKE = re.compile(
    r"\b(?:AKIA|ASIA|AIDA|AROA|GOOG)[A-Z0-9]{12,}\b|(?i:\b(?:credential|signature|token)=\S+)"
)


@dataclass(slots=True)
class Place:
    """Where requests go, as far as messages speak of it."""

    url: str
    bucket: str
    endpoint: str = ""
    """Scheme, host and port."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What no message may show."""

    def keep_secret(self, *texts: str | None) -> None:
        """Show none of *texts* from now on."""
        self.secrets += tuple(text for text in texts if text and text not in self.secrets)

    def show(self, text: object) -> str:
        """Return *text* on one line, without control characters, keys and secrets."""
        line = str(text)
        for secret in self.secrets:
            line = line.replace(secret, "***")
        line = _KEY_LIKE.sub("***", _USER.sub("//***@", _QUERY.sub("?***", line)))
        line = "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode()
            for character in line
        )
        return line if len(line) <= _MESSAGE_LENGTH else f"{line[:_MESSAGE_LENGTH]}…"
