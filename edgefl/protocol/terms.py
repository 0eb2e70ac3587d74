"""Terms: what a masked round fixes for all its devices and helpers. No I/O.

A round carries them as a JSON text. H, their `digest`, is the SHA-256 of that text's bytes as they came, so there is no
canonical JSON. Devices sign H with their update, and helpers open sets of one H only: a device that was shown other
terms, another model among them, is in no set. The attempt is not in it, since another attempt asks for the same work.
The terms are strict, as the plan is: a device that does not know a field in them refuses the round.

A device sends L = d + 4 + 1 (+ 3) (+ v) integers, each centred in Z_2^m:

    d coordinates | 1 1 1 1 | w | held-out weight, loss, accuracy | v votes

The ones add up to the count, and find a faulty sum. w is the weight of the device's delta. The three scores are there
if `scores` is set, and the v votes if the clip is adaptive: each says whether the delta was within it. In a round of
mode "profile" the d coordinates are counts (profile_terms.py), and d = P.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ..digests import sha256
from ..errors import ProtocolError
from ..privacy import Epsilon
from ..settings.privacy import MOST_HELPERS
from ..settings.sections import Count, Positive
from ..trust.document import Name
from ..trust.ed25519 import from_text
from .messages import KeepsBytes, Sha256, decode
from .profile_terms import ProfileTerms
from .round import MAX_TERMS, Round

FEATURE = "masked"  # what a masked round requires of a device
CHECKS = 4  # coordinates of constant 1
SCORES = 3
MOST_COPIES = 2**20  # of a vote
MOST_SCORE = 64  # the largest integer of a score, unless the reach is smaller
MOST_BANDED = 2.0  # what banded noise of one round has of the variance of white noise, at most
RARE = 2.0**-40  # how likely noise may be to wrap
MIN_BITS, MAX_BITS = 2, 32
MOST_DEVICES = 2**20
_PREFIX = b"edgefl terms 1\n"

PublicKey = Annotated[str, Meta(min_length=44, max_length=44)]
Real = Annotated[float, Meta(gt=0, le=1e12)]
NotNegative = Annotated[float, Meta(ge=0, le=1e12)]


class Party(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A helper: its name, the epoch of its keys, the X25519 key `box` and the Ed25519 key `key`, public, in base64."""

    name: Name
    epoch: Count
    box: PublicKey
    key: PublicKey


class Noise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What every helper adds to the sum that it opens. `sigma` is in units of the integers.

    "banded": correlated over `rounds` rounds, which are fixed beforehand, by a matrix with `band` diagonals.
    `separation` is the least number of rounds from one participation of a device to its next; 0: any.
    """

    kind: Literal["none", "independent", "banded"] = "none"
    sigma: NotNegative = 0.0
    band: Count = 0
    separation: Count = 0
    rounds: Count = 0


class Votes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whether a delta was no longer than the clip: `copies` integers, each `size` if it was, else -`size`. Centred, a
    vote adds its size squared to the norm, and several copies add up to one that no reach bounds."""

    copies: Annotated[int, Meta(ge=0, le=MOST_COPIES)] = 0
    size: Annotated[int, Meta(ge=0, le=2**31)] = 0

    @property
    def norm2(self) -> int:
        """What they add to the sum of squares."""
        return self.copies * self.size**2


class Terms(KeepsBytes, frozen=True, dict=True, forbid_unknown_fields=True, omit_defaults=True):
    """The terms of one masked round. federation to manifest are the round's own.

    Of `params` numbers of an update the round sends `coordinates`, by `transform` and `seed` (masking/choice.py); the
    last `whole` numbers, running statistics, are all among them, as they are.
    An integer of 1 stands for `grid` of weight x delta. No device's integer is larger than `reach` in size.
    `clip` bounds the L2 norm of a delta before it is weighted; with `votes` it is this round's alone. `norm2` bounds
    the sum of the squares of a device's integers, the four ones apart.
    A set has `least` devices or more, and `most` at most. A device's weight is min(`weights`, ceil(n / `examples`)).
    Each device is in one of `groups` groups, by H and its name, and each group is opened by itself.
    `epsilon`, `delta`: what is spent once this round is over; 0 without noise.
    `profile`: devices tell of their columns, and send no delta.
    """

    federation: Name
    run: Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
    round: Count
    version: Count
    model_sha256: Sha256
    manifest: Annotated[str, Meta(pattern="^[0-9a-f]{16}\\Z")]
    params: Annotated[int, Meta(ge=1, le=2**31)]
    coordinates: Annotated[int, Meta(ge=1, le=2**31)]
    seed: Annotated[int, Meta(ge=0, le=2**53)]
    bits: Annotated[int, Meta(ge=MIN_BITS, le=MAX_BITS)]
    reach: Annotated[int, Meta(ge=1, le=2**31)]
    grid: Real
    clip: Real
    norm2: Annotated[int, Meta(ge=1, le=2**62)]
    least: Annotated[int, Meta(ge=2, le=MOST_DEVICES)]
    most: Annotated[int, Meta(ge=2, le=MOST_DEVICES)]
    helpers: Annotated[tuple[Party, ...], Meta(min_length=1, max_length=MOST_HELPERS)]
    transform: Literal["subset", "hadamard"] = "subset"
    whole: Annotated[int, Meta(ge=0, le=2**31)] = 0
    weights: Annotated[int, Meta(ge=1, le=2**20)] = 1
    examples: Positive = 1
    scores: bool = False
    votes: Votes = Votes()
    groups: Annotated[int, Meta(ge=1, le=64)] = 1
    noise: Noise = Noise()
    epsilon: Epsilon = 0.0
    delta: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    profile: ProfileTerms | None = None

    @classmethod
    def read(cls, text: str) -> Terms:
        """The terms in a round; ProtocolError says what is wrong with them."""
        found = decode(cls, text.encode(), MAX_TERMS)
        found.check()
        return found

    @property
    def text(self) -> str:
        """The JSON text, as it is in the round."""
        return self.raw.decode()

    @property
    def digest(self) -> bytes:
        """H, 32 bytes."""
        return digest_of(self.raw)

    # ---- the vector

    @property
    def length(self) -> int:
        """L, the integers that a device sends."""
        return self.coordinates + CHECKS + 1 + (SCORES if self.scores else 0) + self.votes.copies

    @property
    def _drawn(self) -> int:
        return self.coordinates - self.whole

    @property
    def packed_bytes(self) -> int:
        """The bytes of L numbers of `bits` bits."""
        return -(-self.length * self.bits // 8)

    @property
    def at_checks(self) -> slice:
        return slice(self.coordinates, self.coordinates + CHECKS)

    @property
    def at_weight(self) -> int:
        return self.coordinates + CHECKS

    @property
    def at_scores(self) -> slice:
        return slice(self.at_weight + 1, self.length - self.votes.copies)

    @property
    def at_votes(self) -> slice:
        return slice(self.length - self.votes.copies, self.length)

    @property
    def most_score(self) -> int:
        """The integer that a score of 1 becomes."""
        return min(self.reach, MOST_SCORE)

    @property
    def largest(self) -> int:
        """The largest integer that an honest device may send."""
        return max(self.reach, self.weights, self.most_score if self.scores else 1, self.votes.size)

    @property
    def noise_bound(self) -> int:
        """What all helpers' noise exceeds in no coordinate, but for a chance of 2^-40 in a round.

        P(|N| > t) <= 2 exp(-t^2 / 2 sigma^2), for L coordinates, G groups and every helper. Banded noise of one round
        is a sum over earlier ones, whose squared factors add up to 2 at most (privacy/correlated.py).
        """
        if self.noise.kind == "none":
            return 0
        draws = self.length * self.groups * len(self.helpers)
        filtered = math.sqrt(MOST_BANDED) if self.noise.kind == "banded" else 1.0
        farthest = filtered * self.noise.sigma * math.sqrt(2 * math.log(2 * draws / RARE))
        return len(self.helpers) * (math.ceil(farthest) + 1)

    @property
    def _longest(self) -> float:
        """The norm that a device's integers can have, whatever `norm2` says."""
        return self.weights * self.clip / self.grid + math.sqrt(self.length)

    def weight_of(self, num_examples: int) -> int:
        """The weight of a device that trained on so many examples."""
        return max(1, min(self.weights, -(-num_examples // self.examples)))

    def group_of(self, device: str) -> int:
        """The group that the device is in: the head of SHA-256(H, device) modulo their number."""
        head = sha256(self.digest + device.encode()).digest()[:8]
        return int.from_bytes(head, "little") % self.groups

    def party(self, name: str) -> Party | None:
        """The helper of this name."""
        return next((party for party in self.helpers if party.name == name), None)

    # ---- whether they can be

    def check(self) -> None:
        """ProtocolError unless the numbers fit together."""
        for wrong, what in self._faults():
            if wrong:
                raise ProtocolError(f"terms of a masked round: {what}: refused", "terms")

    def _faults(self) -> tuple[tuple[bool, str], ...]:
        wrap = self.most * self.largest + self.noise_bound >= 2 ** (self.bits - 1)
        names, noise = {party.name for party in self.helpers}, self.noise
        keys = [_key(text) for party in self.helpers for text in (party.box, party.key)]
        fixed = self.weights**2 + (SCORES * self.most_score**2 if self.scores else 0) + self.votes.norm2
        return (
            (self.coordinates > self.params, "more coordinates than params"),
            (self._drawn < (self.whole < self.params), "fewer coordinates than are sent whole, or none beside them"),
            (self.least > self.most, "a least number of devices above the most"),
            (self.groups * self.least > self.most, "more groups than the most devices could fill"),
            (wrap, f"a modulus too small: {self.most} devices of at most {self.largest} wrap in {self.bits} bits"),
            (self.norm2 < fixed, "a squared norm below that of the weight, the scores and the votes"),
            (self._longest >= 2**30, "a grid too fine for the clip"),
            (len(names) != len(self.helpers), "two helpers of one name"),
            (not all(keys), "a key that can't be"),
            (len(set(keys)) < len(keys), "two helpers with one key, which are one"),
            ((noise.kind == "none") != (noise.sigma == 0), "a sigma without noise, or noise without a sigma"),
            (noise.kind == "banded" and noise.band * noise.rounds == 0, "banded noise without a band or rounds"),
            (noise.kind != "banded" and noise.band + noise.rounds > 0, "a band without banded noise"),
            (noise.kind == "banded" and not 0 < noise.band <= max(noise.separation, 1), "a band above the separation"),
            ((self.votes.copies == 0) != (self.votes.size == 0), "votes without a size, or a size without votes"),
            (noise.kind == "banded" and self.votes.copies > 0, "banded noise, whose units are those of one clip"),
            (noise.kind != "none" and self.weights > 1, "weights whose sum the noise would hide"),
            (noise.kind == "none" and (self.epsilon > 0 or self.delta > 0), "an epsilon without noise"),
            *self._faults_of_profile(),
        )

    def _faults_of_profile(self) -> tuple[tuple[bool, str], ...]:
        if (profile := self.profile) is None:
            return ()
        noise = self.noise.kind
        plain = (self.transform, self.whole, self.weights, self.groups) == ("subset", 0, 1, 1)
        plain = plain and not (self.scores or self.votes.copies)
        return (
            (bool(why := profile.fault()), f"a profile of {why}"),
            (self.coordinates != self.params, "a part of a profile"),
            (self.coordinates != profile.length(self.reach), "other coordinates than the profile's"),
            (not plain, "a profile with weights, scores, votes, groups or a transform"),
            (noise != "none" and not profile.ranges, "noise on counts, which nothing bounds"),
            (noise == "banded", "a profile with correlated noise"),
        )

    def check_round(self, round: Round, federation: str) -> None:
        """ProtocolError unless these are the terms of this round."""
        own = (self.federation, self.run, self.round, self.version, self.model_sha256, self.manifest)
        asked = (federation, round.run, round.round, round.version, round.model_sha256, round.manifest)
        mode = "train" if self.profile is None else "profile"
        if own != asked or round.mode != mode or FEATURE not in round.requires:
            raise ProtocolError("the terms of a masked round are of another round or model: refused", "terms")


def digest_of(text: bytes) -> bytes:
    """H of terms that need not be readable."""
    return sha256(_PREFIX + text).digest()


def _key(text: str) -> bytes:
    """The bytes of a public key, of which there are several texts; b"" if it can't be one."""
    try:
        return from_text(text)
    except ProtocolError:
        return b""


msgspec.json.Decoder(Terms)  # described at import: see messages.py
