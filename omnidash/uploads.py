"""Files from a browser, of which no more is taken than is allowed."""

from __future__ import annotations

from typing import Any

from django.core.files.uploadhandler import FileUploadHandler, StopUpload


class Quota(FileUploadHandler):
    """Stands before the handler that writes. `exceeded` afterwards, if there was more than `most`
    bytes; then no file is there."""

    def __init__(self, request: Any, most: int) -> None:
        super().__init__(request)
        self.exceeded = False
        self._left = most

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes:
        self._left -= len(raw_data)
        if self._left < 0:
            self.exceeded = True
            raise StopUpload(connection_reset=False)  # so that the browser reads the answer
        return raw_data

    def file_complete(self, file_size: int) -> None:
        return None
