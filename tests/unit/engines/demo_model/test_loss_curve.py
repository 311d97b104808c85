from pathlib import Path
from xml.etree import ElementTree as ET

from engines.demo_model.loss_curve import draw_loss_curve


def test_every_logged_step_is_a_point_of_the_curve(tmp_path: Path) -> None:
    log, picture = tmp_path / "loss.csv", tmp_path / "loss.svg"
    log.write_text("step,elapsed_s,tokens,loss,rate\n20,30,1000,4.0,1.0\n40,60,2000,1.0,0.5\n60,90,3000,0.5,0.02\n")

    draw_loss_curve(log, picture)

    (line,) = ET.parse(picture).getroot().iter("{http://www.w3.org/2000/svg}polyline")
    assert len(line.attrib["points"].split()) == 3
