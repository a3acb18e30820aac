"""The benchmark of a GPU works where there is none: on a CPU when told so, and otherwise it says what is missing."""

from __future__ import annotations

import pytest
import torch

from benchmarks import utilisation
from benchmarks.kernels import CLASSES, REST, kind_of


@pytest.mark.parametrize(
    "kernel, kind",
    [
        ("nvjet_tst_256x128_64x4_1x2_h_bz_coopA_NNT", "matmul"),
        ("void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_128x2_tn_align8>", "matmul"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matmul"),
        ("void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>>", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_7_64x64x128", "attention"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>", "norm"),
        ("triton_red_fused_native_layer_norm_native_layer_norm_backward_12", "norm"),
        ("sm80_xmma_fprop_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nchw", "conv"),
        ("sm90_xmma_wgrad_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc", "conv"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::GeluCUDAKernelImpl>", REST),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<float, unsigned int, 3, 64, 64>", REST),
        ("Memcpy DtoD (Device -> Device)", REST),
        ("triton_poi_fused_gelu_3", REST),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer"),
        ("aten::addmm", "matmul"),
        ("aten::mkldnn_convolution", "conv"),
    ],
)
def test_kernels_are_told_apart_by_their_names(kernel: str, kind: str) -> None:
    assert kind_of(kernel) == kind


@pytest.mark.slow
def test_a_step_on_the_cpu_fills_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--device cpu --model medformer_nano --size 8 --size 4 8 8 --channels 1 --batch 2 --steps 1 --compile off"
    words += " --peak-tflops 0.1 --checkpointing on"
    assert utilisation.main(words.split()) == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line[0] for line in lines[2:]] == ["| 8x8", "| 4x8x8"]
    for line in lines[2:]:
        assert len(line) == len(lines[0]) and line[1:4] == ["2", "no", "yes"]
        shares = dict(part.rsplit(" ", 1) for part in line[-1].removesuffix(" |").split(", "))
        assert set(shares) <= {*CLASSES, REST, "idle"} and "matmul" in shares
        assert sum(int(share.removesuffix("%")) for share in shares.values()) == pytest.approx(100, abs=6)


def test_a_device_of_unknown_peak_is_asked_for() -> None:
    with pytest.raises(SystemExit, match="--peak-tflops"):
        utilisation.main(["--device", "cpu"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_it_is_left_out_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    table = utilisation.run()
    assert table.rows == () and "no CUDA device" in table.markdown()
    assert capsys.readouterr().err == "benchmarks: no CUDA device: utilisation is left out\n"
