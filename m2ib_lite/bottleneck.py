"""The information bottleneck of M2IB (paper, section 3) on the hidden states of any model: noise in, information counted."""

import torch
import torch.nn.functional as F

START = 5.0  # alpha before the first step: lam = 0.993, nearly everything passes
LEAST = 1e-3  # spread of a channel, below which it is not stretched


def inject(hidden, alpha, noise, sigma2):
    """Z = lam R + (1 - lam) sigma eps with lam = sigmoid(alpha).  (B, T, D) and noise (S, B, T, D) -> (S, B, T, D)"""
    lam, rest = torch.sigmoid(alpha), torch.sigmoid(-alpha)  # 1 - lam would round to 0 from alpha = 17
    return (lam * hidden + rest * sigma2**0.5 * noise).to(hidden.dtype)


def capacity(hidden, alpha, sigma2):
    """KL( N(lam R, sigma2 (1 - lam)^2) || N(0, sigma2) ), elementwise, in nats.  (B, T, D) -> (B, T, D) float32"""
    hidden, alpha = hidden.float(), alpha.float()  # whatever autocast says
    lam, rest = torch.sigmoid(alpha), torch.sigmoid(-alpha)
    return 0.5 * (lam * hidden).square() / sigma2 - 0.5 * lam * (1 + rest) - F.logsigmoid(-alpha)  # finite for every alpha


def moments(hidden, valid):
    """Mean and standard deviation of each channel over the valid positions.  (B, T, D), (B, T) -> (B, 1, D), (B, 1, D) float32"""
    hidden, valid = hidden.float(), valid[..., None]
    count = valid.sum(dim=1, keepdim=True)
    mean = (hidden * valid).sum(dim=1, keepdim=True) / count
    spread = ((hidden - mean).square() * valid).sum(dim=1, keepdim=True) / count
    return mean, spread.sqrt().clamp(min=LEAST)


def terms(hidden, alpha, similarity, valid, noise, beta, sigma2):
    """The compression, beta * mean KL over the valid positions, and the fitting, the mean cosine over the noise.  -> (B,), (B,)"""
    kl = capacity(hidden, alpha, sigma2).mean(dim=-1)  # (B, T)
    compression = beta * (kl * valid).sum(dim=-1) / valid.sum(dim=-1)
    return compression, similarity(inject(hidden, alpha, noise, sigma2)).mean(dim=0)


def descend(hidden, similarity, valid, draw_noise, *, beta, sigma2, lr):
    """Walk down compression - fitting by Adam without an end: yields alpha (B, T, D) float32 after 0, 1, 2, ... steps.

    hidden: (B, T, D), the states R that the bottleneck is put on; no pair's alpha depends on the pairs beside it.
    similarity: (S, B, T, D) -> (S, B), the cosine between the rest of the tower at Z and the other tower's embedding.
    valid: (B, T) bool, positions that are no padding; only they are counted in the KL.
    draw_noise: () -> (S, B, T, D) standard normal, fresh at each step.
    """
    hidden = hidden.detach()
    alpha = torch.full_like(hidden, START, dtype=torch.float32, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=lr)
    while True:
        yield alpha.detach().clone()
        with torch.enable_grad():
            compression, fitting = terms(hidden, alpha, similarity, valid, draw_noise(), beta, sigma2)
            (alpha.grad,) = torch.autograd.grad((compression - fitting).sum(), alpha)  # into alpha alone, never into a weight
        adam.step()
