"""The enterprise dialect of stablediffusionapi.com / ModelsLab: everything is POST and JSON."""

from server.endpoints.enterprise import (
    fetch,
    img2img,
    inpaint,
    later,
    models,
    operations,
    text2img,
    upkeep,
    upload_image,
)
from server.endpoints.enterprise.webhook import announcement
from server.endpoints.enterprise.wire import PREFIX, error_response

routers = (
    text2img.router,
    img2img.router,
    inpaint.router,
    fetch.router,
    models.router,
    operations.router,
    upkeep.router,
    upload_image.router,
    later.router,
)

__all__ = ["PREFIX", "announcement", "error_response", "routers"]
