"""
Which variables of gatewayd's own environment its executors get: all, or what programs need plus those named.

The second is for gateways that strangers reach: passwords and tokens that are meant for the gateway, or for
other executors, are then not in processes which do not need them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import Final

EVERYTHING: Final = "*"

# By purpose: the system, Python, gatewayd's and the reference's own, processors and memory, the libraries.
_USUAL_BY_PURPOSE: Final = """
    PATH HOME USER LOGNAME SHELL PWD TERM LANG LANGUAGE LC_* TZ TZDIR TMPDIR TEMP TMP XDG_*
    STATE_DIRECTORY CACHE_DIRECTORY LD_LIBRARY_PATH LD_PRELOAD DYLD_* MALLOC_* MIMALLOC_*
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE

    PYTHON* VIRTUAL_ENV CONDA_* MPL*

    GATEWAYD_* JINA_* GRPC_*

    OMP_* GOMP_* KMP_* MKL_* OPENBLAS_* BLIS_* VECLIB_* NUMEXPR_* NUMBA_* TBB_*
    CUDA_* CUDNN_* CUBLAS_* NVIDIA_* NCCL_* GLOO_* GPU_* HIP_* HSA_* ROCM_* ROCR_* MIOPEN_*

    TORCH_* TORCHINDUCTOR_* TORCHDYNAMO_* PYTORCH_* TRITON_* TF_* TFHUB_* KERAS_* JAX_* XLA_* ORT_*
    HF_* HUGGINGFACE_* TRANSFORMERS_* TOKENIZERS_* SENTENCE_TRANSFORMERS_* DIFFUSERS_* VLLM_*
    NLTK_DATA TIKTOKEN_* OPENCV_*
"""
_USUAL: Final = tuple(_USUAL_BY_PURPOSE.split())
# HF_TOKEN, for example: what is secret is inherited where it is named. GATEWAYD_HEADER has a caller's key.
_SECRET: Final = re.compile(
    r"(?:^|_)(?:TOKENS?|JWT|SECRETS?|PASS|PASSWORD|PASSWD|PASSPHRASE|(?:API)?KEYS?|CREDENTIALS?|CREDS|AUTH)(?:_|$)"
    r"|^GATEWAYD_HEADER$"
)


def inherited(environment: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """
    The part of ``environment`` that an executor inherits; ``names`` are patterns such as ``AWS_*``.

    EVERYTHING among them is all of it.
    """
    if EVERYTHING in names:
        return dict(environment)
    return {name: value for name, value in environment.items() if _goes(name, names)}


def _goes(name: str, names: Collection[str]) -> bool:
    if any(fnmatchcase(name, pattern) for pattern in names):
        return True
    return not _SECRET.search(name) and any(fnmatchcase(name, pattern) for pattern in _USUAL)
