"""The hub's Xet storage, which keeps files in chunks: a file is streamed in order, from any byte on.

Why streams, and not the client's download of whole files: pipelines/decisions/0014.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, BinaryIO


class XetBroken(Exception):
    """A stream broke off or did not begin; the rest of the file comes by another way."""


class XetStorage:
    """The storage as the hub's client reaches it; one object serves several threads."""

    def is_usable(self) -> bool:
        """Whether the client's package is installed, and not switched off by HF_HUB_DISABLE_XET."""
        from huggingface_hub import constants

        return not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None

    def fetch(self, data: Any, headers: dict[str, str], size: int, file: BinaryIO, bar: Any) -> None:
        """Append to a file what is missing of it.

        Args:
            data: what the hub said of the file in this storage.
            headers: those of a request to the hub, with the token.
            bar: is told of the bytes that come; what it raises ends the stream.
        Raises:
            XetBroken: the stream broke off; what came is in the file.
            OSError: the file cannot be written.
        """
        stream = self.stream(data, headers, size, file.tell())
        while True:
            try:
                chunk = next(stream, None)
            except KeyboardInterrupt:
                raise
            except Exception as error:  # it documents none of what it raises
                raise XetBroken(str(error) or type(error).__name__) from error
            if chunk is None:
                break
            file.write(chunk)
            if bar is not None:
                bar.update(len(chunk))
        if file.tell() != size:
            raise XetBroken(f"the stream ended after {file.tell()} of {size} bytes")

    def stream(self, data: Any, headers: dict[str, str], size: int, start: int) -> Iterator[bytes]:
        """The bytes of a file from ``start`` on, in order."""
        client: Any = import_module("huggingface_hub.utils._xet")
        xet: Any = import_module("hf_xet")  # neither has types
        if start == size:
            return
        connection = client.refresh_xet_connection_info(file_data=data, headers=headers)
        group = client.get_xet_session().new_download_stream_group(
            endpoint=connection.endpoint,
            token=connection.access_token,
            token_expiry_unix_secs=connection.expiration_unix_epoch,
            token_refresh_url=data.refresh_route,
            token_refresh_headers=headers,
            custom_headers=client.xet_headers_without_auth(headers),
        )
        yield from group.download_stream(xet.XetFileInfo(data.file_hash, size), start=start or None)
