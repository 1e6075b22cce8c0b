"""Small diffusers pipelines with random weights, by the real classes; tokenizers made here, without a download."""

import json

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

__all__ = ["NAMES", "clip_tokenizer", "saved", "unet"]

LENGTH = 16  # tokens of a prompt
SD_BETAS = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, steps_offset=1)


def clip_tokenizer(folder):
    """CLIP's tokenizer with the bytes alone and no merges."""
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    return CLIPTokenizer.from_pretrained(str(folder), model_max_length=LENGTH), len(words)


def t5_tokenizer():
    vocabulary = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        *((c, -float(ord(c) % 7)) for c in map(chr, (*range(32, 127), 0x2581))),
    ]
    raw = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=False))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return raw, len(vocabulary)


def clip_text(words, width=8, projected=False):
    config = CLIPTextConfig(
        vocab_size=words, hidden_size=width, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=LENGTH, projection_dim=width, bos_token_id=words - 2, eos_token_id=words - 1,
        pad_token_id=words - 1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def vae(channels=4, **more):
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, sample_size=16,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=channels, norm_num_groups=4, **more,
    ).eval()  # fmt: skip


def unet(out_channels=3, **more):
    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=out_channels, block_out_channels=(8, 16), norm_num_groups=4,
        layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), **more,
    ).eval()  # fmt: skip


def unet_of_text(cross, **more):
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross, attention_head_dim=2, **more,
    ).eval()  # fmt: skip


def ddpm(_):
    return DDPMPipeline(unet(), DDPMScheduler(clip_sample=False))


def dit(_):
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        patch_size=2, num_embeds_ada_norm=1000,
    ).eval()  # fmt: skip
    return DiTPipeline(network, vae(), DDIMScheduler(clip_sample=False))


def sd1(folder, scheduler=None):
    tokenizer, words = clip_tokenizer(folder)
    return StableDiffusionPipeline(
        vae=vae(), text_encoder=clip_text(words), tokenizer=tokenizer, unet=unet_of_text(8),
        scheduler=scheduler or DDIMScheduler(**SD_BETAS), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def sdxl(folder):
    tokenizer, words = clip_tokenizer(folder)
    network = unet_of_text(
        16, addition_embed_type="text_time", addition_time_embed_dim=4, projection_class_embeddings_input_dim=4 * 6 + 8,
        transformer_layers_per_block=1, use_linear_projection=True,
    )  # fmt: skip
    betas = {key: SD_BETAS[key] for key in ("beta_schedule", "beta_start", "beta_end", "steps_offset")}
    return StableDiffusionXLPipeline(
        vae=vae(), text_encoder=clip_text(words), text_encoder_2=clip_text(words, projected=True), tokenizer=tokenizer,
        tokenizer_2=tokenizer, unet=network, scheduler=EulerDiscreteScheduler(**betas), add_watermarker=False,
    )  # fmt: skip


def t5(width):
    raw, words = t5_tokenizer()
    config = T5Config(
        vocab_size=words, d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0, eos_token_id=1
    )  # fmt: skip
    return raw, T5EncoderModel(config).eval()


def pieces(raw):
    from transformers import T5TokenizerFast

    tokenizer = T5TokenizerFast(tokenizer_object=raw, model_max_length=LENGTH, extra_ids=0)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


def sd3(folder):
    tokenizer, words = clip_tokenizer(folder)
    raw, encoder = t5(32)
    network = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=16, out_channels=4,
        pos_embed_max_size=16,
    ).eval()  # fmt: skip
    return StableDiffusion3Pipeline(
        network, FlowMatchEulerDiscreteScheduler(shift=3.0), vae(shift_factor=0.06, scaling_factor=1.5),
        clip_text(words, projected=True), tokenizer, clip_text(words, projected=True), tokenizer, encoder, pieces(raw),
    )  # fmt: skip


def flux(folder):
    tokenizer, words = clip_tokenizer(folder)
    raw, encoder = t5(16)
    network = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    ).eval()  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return FluxPipeline(
        scheduler, vae(shift_factor=0.1, scaling_factor=0.4), clip_text(words), tokenizer, encoder, pieces(raw), network
    )  # fmt: skip


NAMES = {"ddpm": ddpm, "dit": dit, "sd1": sd1, "sdxl": sdxl, "sd3": sd3, "flux": flux}


def saved(name, folder, *arguments):
    """A pipeline by name, saved under the folder; (the pipeline as diffusers opens it again, its folder)."""
    torch.manual_seed(0)
    NAMES[name](folder / "words", *arguments).save_pretrained(folder / name)
    pipeline = DiffusionPipeline.from_pretrained(folder / name)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, folder / name
