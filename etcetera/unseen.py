"""Characters that drive a terminal, or that nobody sees and that make two names look like one."""

import re

# Controls (a terminal obeys them), and the halves that stand for bytes which are no UTF-8.
_CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
# Whatever is of category Cf or has the property Default_Ignorable_Code_Point (directions of
# writing, fillers, variation selectors, tags), but for signs of category Cf that are drawn
# (Prepended_Concatenation_Mark); and the empty pattern of Braille, which is drawn as a blank.
# Joiners and emoji's selector are looked at below. Source: Unicode Character Database 15.1,
# DerivedCoreProperties.txt, DerivedGeneralCategory.txt and PropList.txt.
_UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
UNSEEN = re.compile(
    f"[{_CONTROL}{_UNSEEN}]"
    # Joiners have their use in some scripts, but not beside ASCII; the selector behind a picture.
    "|(?<=[\x20-\x7e])[\u200c\u200d]|[\u200c\u200d](?=[\x20-\x7e])|(?<![^\x00-\x7f])\ufe0f"
)
"""One such character."""
