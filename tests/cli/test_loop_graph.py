"""`vpr-dhe loops --format g2o`."""

import PIL.Image
from recordings import small_frames


def test_loops_as_a_pose_graph(run, tmp_path):
    frames, times, graph = tmp_path / "frames", tmp_path / "times.csv", tmp_path / "graph.g2o"
    frames.mkdir()
    seen = small_frames(6)
    for number, pixels in enumerate([*seen, *seen]):
        PIL.Image.fromarray(pixels).save(frames / f"{number}.png")
    command = ("loops", frames, "--verifier", "none", "--ignore-frames", 2, "--out", graph)
    assert run(*command, "--format", "g2o")[0] == 2

    def with_table(header: str, *rows: str) -> tuple[int, str]:
        times.write_text("\n".join([header, *rows]))
        code, _, stderr = run(*command, "--times", times, "--ignore-seconds", 1, "--min-probability", 0)
        return code, stderr

    degrees = [f"{number}.png,{number},48.5,{number},90" for number in range(12)]
    code, stderr = with_table("image,timestamp,latitude,longitude,heading", *degrees)
    assert (code, stderr.count("\n"), "positions in metres and headings" in stderr) == (2, 1, True)
    assert "use --format csv" in stderr

    metres = [f"{number}.png,{number},{number % 6},0.5,90" for number in range(10)]
    code, stderr = with_table("image,timestamp,x,y,heading", *metres, "10.png,10,,,", "11.png,11,,,")
    assert code == 0
    lines = graph.read_text().splitlines()
    assert "VERTEX_SE2 9 3.0000 0.5000 0.000000" in lines
    assert sum(line.startswith("VERTEX_SE2") for line in lines) == 10
    edges = [line.split()[1:3] for line in lines if line.startswith("EDGE_SE2")]
    assert edges
    assert all(int(earlier) < int(later) < 10 for earlier, later in edges)
    assert "left out" in stderr
