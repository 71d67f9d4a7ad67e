"""The dialect of Segmind's API: one file per documented page."""

from server.endpoints.segmind import (
    assets,
    credits,
    esrgan,
    kandinsky22_txt2img,
    kolors,
    requests,
    sd3_med_pose,
    sd15_controlnets,
    sd15_img2img,
    sd15_inpainting,
    sd15_txt2img,
    sdxl_img2img,
    sdxl_inpaint,
    sdxl_txt2img,
)
from server.endpoints.segmind.wire import error_response, sent_key

routers = (
    kandinsky22_txt2img.router,
    kolors.router,
    sd3_med_pose.router,
    sd15_img2img.router,
    sd15_txt2img.router,
    sd15_inpainting.router,
    *sd15_controlnets.routers,
    sdxl_txt2img.router,
    *sdxl_img2img.routers,
    sdxl_inpaint.router,
    esrgan.router,
    requests.router,
    credits.router,
    assets.router,
)

__all__ = ["error_response", "routers", "sent_key"]
