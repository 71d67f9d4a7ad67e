"""The enterprise dialect of stablediffusionapi.com / ModelsLab: everything is POST and JSON."""

from server.endpoints.enterprise import (
    base64_crop,
    base64_to_url,
    controlnet,
    fetch,
    img2img,
    inpaint,
    loads,
    models,
    nsfw_image_check,
    operations,
    super_resolution,
    text2img,
    upkeep,
    upload_image,
)
from server.endpoints.enterprise.webhook import announcement
from server.endpoints.enterprise.wire import PREFIX, ROOT, error_response, sent_key

routers = (
    text2img.router,
    img2img.router,
    inpaint.router,
    controlnet.router,
    fetch.router,
    models.router,
    loads.router,
    operations.router,
    upkeep.router,
    upload_image.router,
    base64_crop.router,
    base64_to_url.router,
    nsfw_image_check.router,
    super_resolution.router,
)

__all__ = ["PREFIX", "ROOT", "announcement", "error_response", "routers", "sent_key"]
