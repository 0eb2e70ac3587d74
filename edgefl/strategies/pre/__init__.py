"""Pre steps: what is done to one update before it is combined with others. One step a file."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..base import Part, Update


class Pre(Part, ABC):
    """`apply` looks at one update only."""

    @abstractmethod
    def apply(self, update: Update) -> Update:
        """The update to combine; CodecError if it is to be refused."""
