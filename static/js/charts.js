// Charts from the data in the page; a refresh gives them new data, and they are not rebuilt.
"use strict";
(function () {
  const charts = new Map(); // element -> { plot, data as text }

  // A canvas needs colours worked out; custom properties may refer to others.
  function colour(name) {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  const pad = (number) => String(number).padStart(2, "0");

  function clock(seconds) {
    const at = new Date(seconds * 1000);
    return `${pad(at.getHours())}:${pad(at.getMinutes())}`;
  }

  function line(label, name, fill) {
    const stroke = colour(`--tblr-${name}`);
    return { label, stroke, width: 1.5, fill: fill ? `color-mix(in srgb, ${stroke} ${fill}%, transparent)` : undefined, points: { show: false } };
  }

  function options(element) {
    const grey = colour("--tblr-secondary");
    const grid = { stroke: colour("--tblr-border-color"), width: 1 };
    return {
      width: element.clientWidth,
      height: 260,
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high * 1.1)] } },
      axes: [{ stroke: grey, grid: { show: false }, ticks: grid, values: (_, splits) => splits.map(clock) }, { stroke: grey, grid, ticks: { show: false }, size: 48 }],
      series: [{ label: "Time", value: (_, at) => (at === null ? "--" : clock(at)) }, line("Received", "azure", 10), line("Processed", "green"), line("Failed", "red", 15)],
    };
  }

  function sparkOptions(element) {
    return {
      width: element.clientWidth, height: 28, padding: [2, 0, 2, 0],
      legend: { show: false }, cursor: { show: false },
      scales: { y: { range: (_, low, high) => [Math.min(0, low || 0), Math.max(high || 0, 1e-9)] } },
      axes: [{ show: false }, { show: false }],
      series: [{}, { ...line("", "azure", 12), spanGaps: true }],
    };
  }

  function columns(element) {
    if (element.dataset.chart) {
      const series = JSON.parse(element.dataset.chart);
      return [series.starts, series.received, series.processed, series.failed];
    }
    const series = JSON.parse(element.dataset.spark);
    return [series.starts, series[element.dataset.column]];
  }

  function draw(element) {
    const text = element.dataset.chart || element.dataset.spark;
    const known = charts.get(element);
    if (known && known.text === text) return;
    if (known) {
      known.plot.setData(columns(element));
      known.text = text;
      return;
    }
    if (!element.clientWidth) return;
    const chosen = element.dataset.chart ? options(element) : sparkOptions(element);
    charts.set(element, { plot: new uPlot(chosen, columns(element), element), text });
  }

  function drawAll() {
    for (const [element, { plot }] of charts) {
      if (!element.isConnected || !element.firstChild) { plot.destroy(); charts.delete(element); }
    }
    document.querySelectorAll("[data-chart], [data-spark]").forEach(draw);
  }

  function redraw() {
    for (const { plot } of charts.values()) plot.destroy();
    charts.clear();
    drawAll();
  }

  document.addEventListener("htmx:after:swap", drawAll);
  document.addEventListener("omnidash:theme", redraw);
  let resizing = 0;
  window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 150); });
  drawAll();
})();
