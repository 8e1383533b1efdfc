"""The parts of `report.html`, one module each; `comparing.page` puts them together."""
