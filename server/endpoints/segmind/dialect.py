"""The dialect of Segmind's API: one file per documented page."""

from server.endpoints.segmind import (
    assets,
    credits,
    kandinsky22_txt2img,
    kolors,
    requests,
    sd3_med_pose,
    sd15_img2img,
)
from server.endpoints.segmind.wire import error_response, sent_key

routers = (
    kandinsky22_txt2img.router,
    kolors.router,
    sd3_med_pose.router,
    sd15_img2img.router,
    requests.router,
    credits.router,
    assets.router,
)

__all__ = ["error_response", "routers", "sent_key"]
