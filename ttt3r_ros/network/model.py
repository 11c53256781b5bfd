# SPDX-License-Identifier: Apache-2.0
"""The network and the only recurrence of this package: image in, new state and prediction out.

An image travels: patches → encoder → decoder, side by side with the recurrent state → heads. The
decoder also proposes a new state; the update rule decides how much of it is taken. Parameters bear
the names of the published CUT3R files (arXiv 2501.12387); only those inference needs are built.
Loading files is `checkpoint`'s, preparing images and composing poses are not the network's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ttt3r_ros.network.config import NetworkConfig
from ttt3r_ros.network.decoder import DecoderBlock, StreamTables, run_decoder
from ttt3r_ros.network.encoder import EncoderBlock, PatchEmbed
from ttt3r_ros.network.heads import DptHeads, Heads, LinearHeads, pose_matrix
from ttt3r_ros.network.layers import at_least_float32, layer_norm
from ttt3r_ros.network.linear import Linear
from ttt3r_ros.network.pose_memory import PoseMemory
from ttt3r_ros.network.precision import tf32_products
from ttt3r_ros.network.prediction import Prediction
from ttt3r_ros.network.rotary import RotaryTable, image_table, state_table
from ttt3r_ros.network.state import RecurrentState, UpdateRule, find_update_rule


class Network(nn.Module):
    """The reconstruction network of one stream, or of B streams side by side.

    It runs in float32. With weights kept in a lower precision (see `precision`), or under
    `torch.autocast`, the matrix products run in that, while residual streams, normalisation,
    rotary encoding, pose head, state update and the outputs stay in float32.

    Args:
        config: the dimensions.
        update_rule: how the state takes the decoder's proposal, a name in `UPDATE_RULES` or a rule.
        rope_float16: round the encoder's queries and keys to float16 around their rotation, as the
            published results were computed; moves outputs by about 1e-3.
        world_points_head: also build the heads that give points in the world frame.

    Attributes:
        tf32: whether CUDA devices may round factors of float32 products to TF32.

    Raises:
        ValueError: no update rule of that name.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        update_rule: UpdateRule | str = "ttt3r",
        rope_float16: bool = False,
        world_points_head: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.update_rule = find_update_rule(update_rule)
        self.world_points_head = world_points_head
        self.tf32 = False
        enc_width, width, ratio = config.enc_embed_dim, config.dec_embed_dim, config.mlp_ratio

        self.patch_embed = PatchEmbed(config.patch_size, enc_width)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(enc_width, config.enc_num_heads, ratio, rope_float16)
            for _ in range(config.enc_depth)
        )
        self.enc_norm = layer_norm(enc_width)

        self.register_tokens = nn.Embedding(config.state_size, enc_width)
        self.decoder_embed_state = Linear(enc_width, width)
        self.pose_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, width), std=0.02))
        self.pose_retriever = PoseMemory(
            enc_width, width, config.local_mem_size, config.dec_num_heads, ratio
        )

        self.decoder_embed = Linear(enc_width, width)
        self.dec_blocks = nn.ModuleList(
            DecoderBlock(width, config.dec_num_heads, ratio) for _ in range(config.dec_depth)
        )
        self.dec_norm = layer_norm(width)
        self.dec_blocks_state = nn.ModuleList(
            DecoderBlock(width, config.state_dec_num_heads, ratio) for _ in range(config.dec_depth)
        )
        self.dec_norm_state = layer_norm(width)

        heads = DptHeads if config.head_type == "dpt" else LinearHeads
        self.downstream_head: Heads = heads(config, world_points_head)

    def keep_weights_in(self, dtype: torch.dtype) -> None:
        """Store what encoder, decoders and memory multiply with in a lower precision.

        They then compute, to the bit, what they do under `torch.autocast`, which would convert the
        weights at each step. What only adds or scales, as normalisations, stays as it is.
        """
        kept = [self.pose_retriever, self.patch_embed, self.decoder_embed]
        for part in (*kept, self.enc_blocks, self.dec_blocks, self.dec_blocks_state):
            for module in part.modules():
                if isinstance(module, (nn.Linear, nn.Conv2d)):
                    module.to(dtype)

    def initial_state(self, batch: int = 1) -> RecurrentState:
        """The state before a stream's first image; it depends on the weights only."""
        # Outside of autocast: later states are float32, and so must be the one they grow from.
        with torch.autocast(self.pose_token.device.type, enabled=False):
            tokens = self.decoder_embed_state(self.register_tokens.weight)
        # Copies, so that nobody who writes into a state writes into the weights.
        tokens = tokens.repeat(batch, 1, 1)
        return RecurrentState(
            tokens=tokens,
            memory=self.pose_retriever.mem.repeat(batch, 1, 1),
            fresh=torch.ones(batch, dtype=torch.bool, device=tokens.device),
            rule_state=self.update_rule.initial(tokens),
        )

    def step(
        self, state: RecurrentState, image: Tensor, update: bool = True
    ) -> tuple[RecurrentState, Prediction]:
        """Takes one image per stream.

        Args:
            state: from `initial_state` or the step before; left untouched.
            image: [B, 3, H, W], RGB in [-1, 1], H and W multiples of the patch size.
            update: false to look without remembering.

        Returns:
            The state for the next image, and what is seen in this one.
        """
        return self.advance(state, self.encode(image), update)

    def encode(self, image: Tensor) -> Tensor:
        """What one image shows by itself, [B, 3, H, W] → features [B, gh, gw, E].

        With a refiner each patch's features are followed by its 3·p² pixels, from which the
        head draws edges: [B, gh, gw, E + 3·p²].

        Raises:
            ValueError: not three channels, or a side that is no multiple of the patch size.
        """
        self._check_image(image)
        with tf32_products(self.tf32):
            return self._encode(image)

    def _encode(self, image: Tensor) -> Tensor:
        tokens = self.patch_embed(image)  # [B, gh, gw, E]
        grid = tokens.shape[1:3]
        rotary = self._image_table(tokens, self.config.enc_head_width)
        tokens = tokens.flatten(1, 2)
        for block in self.enc_blocks:
            tokens = block(tokens, rotary)
        features = torch.unflatten(self.enc_norm(tokens), 1, grid)
        if self.config.refiner_width:
            pixels = F.pixel_unshuffle(image, self.config.patch_size).permute(0, 2, 3, 1)
            features = torch.cat((features, pixels.to(features)), dim=-1)
        return features

    @overload
    def advance(
        self, state: RecurrentState, features: Tensor, update: bool = ..., *, heads: Literal[False]
    ) -> tuple[RecurrentState, None]: ...

    @overload
    def advance(
        self, state: RecurrentState, features: Tensor, update: bool = ...
    ) -> tuple[RecurrentState, Prediction]: ...

    def advance(
        self, state: RecurrentState, features: Tensor, update: bool = True, *, heads: bool = True
    ) -> tuple[RecurrentState, Prediction | None]:
        """Takes the features [B, gh, gw, E] of one image per stream.

        Args:
            state: from `initial_state` or the step before; left untouched.
            features: from `encode`.
            update: false to look without remembering: tokens, memory and the rule's own state
                stay as they are, yet the next image is no longer the first.
            heads: false to remember without looking; there is no prediction then.

        Returns:
            The state for the next image, and what is seen in this one.

        Raises:
            ValueError: state or features do not fit the network or each other.
        """
        self._check_state(state, features)
        with tf32_products(self.tf32):
            return self._advance(state, features, update, heads)

    def _advance(
        self, state: RecurrentState, features: Tensor, update: bool, heads: bool
    ) -> tuple[RecurrentState, Prediction | None]:
        memory = self.pose_retriever
        tokens = features[..., : self.config.enc_embed_dim]
        appearance = memory.appearance(tokens.flatten(1, 2))  # [B, 1, C]
        remembered = memory.read(state.memory, appearance)
        pose_token = torch.where(state.fresh[:, None, None], self.pose_token, remembered)
        candidate, layers, beta = self.decode(state.tokens, pose_token, tokens)

        if update:
            gain, rule_state = self.update_rule.gain(beta, candidate, state)
            gain = gain.masked_fill(state.fresh[:, None], 1.0)
            new_state = RecurrentState(
                tokens=torch.lerp(state.tokens, candidate, gain[..., None]),
                # The gain is for the tokens alone: every image is written into the memory.
                memory=memory.write(state.memory, appearance, layers[-1][:, :1]),
                fresh=torch.zeros_like(state.fresh),
                rule_state=rule_state,
            )
        else:
            gain = torch.zeros_like(beta)
            new_state = replace(state, fresh=torch.zeros_like(state.fresh))
        prediction = self.predict(features, layers, gain) if heads else None
        return new_state, prediction

    def decode(
        self, state_tokens: Tensor, pose_token: Tensor, features: Tensor
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """State and image read each other.

        Args:
            state_tokens: [B, S, C]
            pose_token: a first guess, [B, 1, C].
            features: [B, gh, gw, E]

        Returns:
            The proposed state [B, S, C]; the image stream's L + 1 layers, pose token first,
            [B, 1 + N, C] each, the last one normalised; β [B, S].
        """
        embedded = at_least_float32(self.decoder_embed(features.flatten(1, 2)))
        image_tokens = torch.cat((pose_token, embedded), dim=1)
        state, layers, beta = run_decoder(
            self.dec_blocks_state,
            self.dec_blocks,
            state_tokens,
            image_tokens,
            state_stream=self._stream_tables(features, self.config.state_head_width),
            image_stream=self._stream_tables(features, self.config.dec_head_width),
        )
        layers[-1] = self.dec_norm(layers[-1])
        return self.dec_norm_state(state), layers, beta

    def predict(self, features: Tensor, layers: list[Tensor], gain: Tensor) -> Prediction:
        """Runs the heads on the features [B, gh, gw, E] and the image stream's layers."""
        grid, depth, heads = features.shape[1:3], self.config.dec_depth, self.downstream_head
        used = (layers[2 * depth // 4], layers[3 * depth // 4], layers[-1])
        maps = [features, *(torch.unflatten(layer[:, 1:], 1, grid) for layer in used)]
        pose = heads.pose_head(layers[-1][:, 0])
        points, confidence = heads.in_camera(maps)
        points_in_world = confidence_in_world = None
        if self.world_points_head:
            rotary = self._image_table(features, self.config.dec_head_width)
            moved = heads.to_world(layers[-1][:, 1:], layers[-1][:, :1], rotary)
            maps[-1] = torch.unflatten(moved, 1, grid)
            points_in_world, confidence_in_world = heads.in_world(maps)
        return Prediction(
            points=points,
            confidence=confidence,
            pose=pose,
            pose_matrix=pose_matrix(pose),
            gain=gain,
            points_in_world=points_in_world,
            confidence_in_world=confidence_in_world,
        )

    def _image_table(
        self, features: Tensor, head_width: int, with_pose_token: bool = False
    ) -> RotaryTable:
        rows, columns = features.shape[1:3]
        base, device, dtype = self.config.rope_base, features.device, features.dtype
        return image_table(rows, columns, with_pose_token, head_width, base, device, dtype)

    def _stream_tables(self, features: Tensor, head_width: int) -> StreamTables:
        config = self.config
        base, device, dtype = config.rope_base, features.device, features.dtype
        return StreamTables(
            state=state_table(config.state_size, config.state_pe, head_width, base, device, dtype),
            image=self._image_table(features, head_width, with_pose_token=True),
        )

    def _check_image(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            raise ValueError(
                f"image: expected float [B, 3, H, W], got {image.dtype} {list(image.shape)}"
            )
        height, width = image.shape[2:]
        patch = self.config.patch_size
        if height % patch or width % patch or not height or not width:
            raise ValueError(
                f"image: height and width must be multiples of {patch}, got {height} x {width}"
            )

    def _check_state(self, state: RecurrentState, features: Tensor) -> None:
        config = self.config
        batch = state.tokens.shape[0]
        for name, tensor, shape in (
            ("state.tokens", state.tokens, (config.state_size, config.dec_embed_dim)),
            ("state.memory", state.memory, (config.local_mem_size, 2 * config.dec_embed_dim)),
        ):
            if tensor.shape != (batch, *shape):
                raise ValueError(f"{name}: expected {[batch, *shape]}, got {list(tensor.shape)}")
        pixels = 3 * config.patch_size**2 if config.refiner_width else 0
        width = config.enc_embed_dim + pixels
        if features.ndim != 4 or features.shape[::3] != (batch, width):
            raise ValueError(
                f"features: expected [{batch}, rows, columns, {width}] for a state "
                f"of {batch} streams, got {list(features.shape)}"
            )
