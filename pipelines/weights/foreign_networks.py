"""Name the networks of other kinds that come as .safetensors files. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Iterable

_OF_TRANSFORMERS = "this server draws with SD1.5 and SDXL"
_ELSEWHERE = "this server has no use for it as a checkpoint, LoRA, textual inversion, VAE or ControlNet"

_MARKS: tuple[tuple[str, str, str], ...] = (
    (r"\blora_controlnet$", "a Control-LoRA", "give a whole ControlNet"),
    (r"(^|\.)(task_embedding$|transformer_layes\.|control_add_embedding\.)", "a ControlNet-Union",
     "give a ControlNet for one kind of control image"),
    (r"(enc_zero_convs|dec_zero_convs|ctrl_to_base|base_to_ctrl|ctrl_subblocks)", "a ControlNet-XS",
     "give a whole ControlNet"),
    (r"^difference$", "a ControlNet saved as the difference to a checkpoint", "give a whole ControlNet"),
    (r"^lllite_", "a ControlNet-LLLite", "give a whole ControlNet"),
    (r"(to_k_ip|to_v_ip|^image_proj\.|^ip_adapter\.|^image_proj_model\.|perceiver_resampler)",
     "an IP-Adapter", _ELSEWHERE),
    (r"^(id_encoder|qformer_perceiver)\.", "a PhotoMaker", _ELSEWHERE),
    (r"^(adapter\.)?(body\.\d+\.(block\d|in_conv|resnets|down_opt|down)|fuser\.)|^adapter\.", "a T2I-Adapter",
     "give a ControlNet"),
    (r"(time_stack|temporal_transformer_block|temporal_res_block|time_mixer|time_conv_out)",
     "Stable Video Diffusion", _OF_TRANSFORMERS),
    (r"^(state_dict\.|module\.)?(320|640|768|1024|1280)\.\d+\.", "a hypernetwork", _ELSEWHERE),
    (r"(clip_txt_mapper|clip_txt_pooled_mapper|effnet_mapper|\.channelwise\.)", "Stable Cascade",
     _OF_TRANSFORMERS),
    (r"(mlp_t5\.|text_embedding_padding$)", "HunyuanDiT", _OF_TRANSFORMERS),
    (r"individual_token_refiner", "HunyuanVideo", _OF_TRANSFORMERS),
    (r"(distilled_guidance_layer)", "Chroma", _OF_TRANSFORMERS),
    (r"(double_stream_blocks)", "HiDream", _OF_TRANSFORMERS),
    (r"(double_layers\.\d+\.attn|cond_seq_linear)", "AuraFlow", _OF_TRANSFORMERS),
    (r"^(model\.diffusion_model\.)?(patch_embedding\.|vace_blocks\.|head\.modulation$)", "Wan",
     _OF_TRANSFORMERS),
    (r"(patchify_proj|caption_projection|adaln_single|scale_shift_table|y_embedder\.y_proj|t_block\.1\.)",
     "a transformer (PixArt, LTX-Video, Sana)", _OF_TRANSFORMERS),
    (r"cross_attn\.(kv|q)_linear", "a transformer (PixArt, Sana)", _OF_TRANSFORMERS),
    (r"attn\.qkv_x", "Mochi", _OF_TRANSFORMERS),
    (r"(^|\.)cap_embedder\.", "a transformer (Lumina, Z-Image)", _OF_TRANSFORMERS),
    (r"(^|\.)(txt_norm\.|img_mod\.)", "Qwen-Image", _OF_TRANSFORMERS),
    (r"(adaLN_modulation|adaln_modulation|x_embedder\.proj|pos_embed\.proj)", "a diffusion transformer",
     _OF_TRANSFORMERS),
    (r"(encoder_hid_proj\.|add_embedding\.image_norm|aug_emb)",
     "a UNet with another text or image encoder (Kolors, Kandinsky, DeepFloyd)", _OF_TRANSFORMERS),
    (r"^cc_projection\.", "Zero123", _OF_TRANSFORMERS),
    (r"(RRDB_trunk|conv_body\.|\.rdb\d\.|\.RDB\d\.|upsampling\.|^model\.1\.sub\.|residual_group|^upconv\d\.|^body\.\d+\.weight$)",
     "an upscaler", "upscalers stand in weights.yaml, below upscalers"),
    (r"(stylegan_decoder|style_convs|codebook|idx_pred_layer)", "a face restorer",
     "face restorers stand in weights.yaml, below face_restorers"),
    (r"(quantize\.embedding)", "a VAE with a codebook (VQ)", "SD1.5 and SDXL have a VAE without one"),
    (r"(decoder\.middle\.\d+\.residual|encoder\.stages\.|decoder\.stages\.)", "a VAE of another family",
     _OF_TRANSFORMERS),
    (r"^((taesd\w*_)?(encoder|decoder)\.)?(layers\.)?\d+\.conv\.\d\.(weight|bias)$",
     "a TAESD, a VAE for previews", "give a whole VAE"),
    (r"(concept_embeds$|special_care_embeds)", "a safety checker", "safety checkers stand in weights.yaml"),
    (r"(^optimizer\.|exp_avg|param_groups|^state\.\d+\.)", "a state of training",
     "give what the training has saved as its result"),
    (r"(^|\.)(vision_model\.|visual\.transformer\.|visual_projection\.)", "an image encoder", _ELSEWHERE),
    (r"^(text_model\.)?encoder\.layers\.\d+\.self_attn|^transformer\.resblocks\.|^text_encoders?\.",
     "a text encoder alone", "the whole checkpoint is needed"),
    (r"^(shared\.weight|encoder\.block\.\d+\.layer\.)", "a T5 text encoder", _OF_TRANSFORMERS),
    (r"(^lm_head\.|embed_tokens\.weight$)", "a language model", _ELSEWHERE),
)  # fmt: skip
"""A pattern of tensors' names, what a file with such a name is, and what to do about it."""

_PATTERNS = tuple((re.compile(mark), name, advice) for mark, name, advice in _MARKS)
_MOTION, _STEERING = "motion_modules.", "controlnet_cond_embedding"


def foreign_network(tensors: Iterable[str]) -> str | None:
    """What a file is, as the end of "it is ...", if it is a network that is not drawn with; else None.

    Args:
        tensors: the names of its tensors.
    """
    names = list(tensors)
    if any(_MOTION in name for name in names):
        steers = any(_STEERING in name for name in names)
        kind = "a SparseCtrl" if steers else "a motion module (AnimateDiff)"
        return f"{kind}; this server draws single pictures"
    for pattern, name, advice in _PATTERNS:
        if any(pattern.search(each) for each in names):
            return f"{name}; {advice}"
    return None
