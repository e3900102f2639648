// Charts: one fetch for all charts of a page; a refresh brings the new points only, and the charts
// move without being rebuilt.
"use strict";
(function () {
  const boards = new Map(); // element -> { url, data, plots, asking }
  const COLOURS = ["azure", "green", "orange", "purple", "teal", "pink", "yellow", "indigo"];
  const LINES = {
    tasks: [["Received", "received", "azure", 10], ["Processed", "processed", "green"], ["Failed", "failed", "red", 15]],
    failure: [["Failed", "failure_rate", "red", 15]],
    latency: [["p50", "p50", "green"], ["p95", "p95", "azure"], ["p99", "p99", "orange"], ["Max", "max", "red"]],
    flight: [["In flight", "in_flight", "azure", 12]],
  };
  const BEFORE = { tasks: "processed", failure: "failure_rate", latency: "p95", flight: "in_flight" };

  // --- Words and colours ---

  // A canvas needs colours worked out; custom properties may refer to others.
  function colour(name) {
    const probe = document.createElement("i");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  function zone() {
    return document.documentElement.dataset.zone || undefined;
  }

  function words(step, span) {
    const parts = { timeZone: zone(), hourCycle: "h23" };
    if (span > 86400 || step >= 86400) Object.assign(parts, { day: "numeric", month: "short" });
    if (step < 86400) Object.assign(parts, { hour: "2-digit", minute: "2-digit" });
    return new Intl.DateTimeFormat(undefined, parts);
  }

  function inUnits(seconds) {
    if (seconds === null || seconds === undefined) return "–";
    if (seconds >= 3600) return `${(seconds / 3600).toFixed(1)} h`;
    if (seconds >= 120) return `${(seconds / 60).toFixed(1)} min`;
    if (seconds >= 1) return `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
    if (seconds === 0) return "0";
    return seconds >= 0.001 ? `${(seconds * 1000).toFixed(seconds < 0.1 ? 1 : 0)} ms` : `${Math.round(seconds * 1e6)} µs`;
  }

  function value(kind, number) {
    if (number === null || number === undefined) return "–";
    if (kind === "latency") return inUnits(number);
    if (kind === "failure") return `${(number * 100).toFixed(1)} %`;
    return number.toLocaleString();
  }

  // Counts are of an interval; rates, latencies and what is in flight only have points so far apart.
  function stepWords(kind, step) {
    const [size, unit] = [[86400, "day"], [3600, "h"], [60, "min"], [1, "s"]].find(([least]) => step >= least);
    const counted = ["tasks", "agents", "errors"].includes(kind);
    return counted && step === size ? `per ${unit}` : `${counted ? "per" : "points of"} ${step / size} ${unit}`;
  }

  // --- Data ---

  function lines(kind, data) {
    if (kind in LINES) {
      const found = LINES[kind].map(([label, name, tone, fill]) => ({ label, tone, fill, column: data[name] }));
      if (data.before) found.push({ label: "Before", tone: "secondary", dash: [4, 4], column: data.before[BEFORE[kind]] });
      return found;
    }
    const { names, columns, rest } = data[kind];
    const found = names.map((label, place) => ({ label, tone: COLOURS[place], column: columns[place] }));
    return [...found, { label: "Others", tone: "secondary", column: rest }];
  }

  function columns(kind, data) {
    return [data.times, ...lines(kind, data).map((line) => line.column)];
  }

  // What is new goes behind, or in place of, what is known; what is older than the range goes.
  function merged(known, news) {
    const keep = known.times.filter((at) => at >= news.start && at < news.times[0]).length;
    const skip = known.times.findIndex((at) => at >= news.start);
    const join = (before, after) => [...before.slice(skip, skip + keep), ...after];
    const both = (a, b) => Object.fromEntries(Object.entries(b).map(([name, column]) =>
      [name, Array.isArray(column) && Array.isArray(a[name]) ? join(a[name], column) : column]));
    const parts = (a, b) => b && {
      keys: b.keys,
      names: b.names,
      columns: b.columns.map((column, place) => join(a.columns[place], column)),
      rest: join(a.rest, b.rest),
    };
    const { gaps, marks, agents, errors, before, ...rest } = news;
    return {
      ...both(known, rest), gaps, marks,
      before: before && both(known.before, before),
      agents: parts(known.agents, agents),
      errors: parts(known.errors, errors),
    };
  }

  const drawn = (parts) => parts && parts.keys.join();

  function fits(known, news) {
    return known.step === news.step && known.times.at(-1) >= news.times[0] - news.step
      && known.times[0] <= news.start && Boolean(known.before) === Boolean(news.before)
      && drawn(known.agents) === drawn(news.agents) && drawn(known.errors) === drawn(news.errors);
  }

  async function ask(url) {
    const response = await fetch(url, { headers: { Accept: "application/json" } });
    const json = (response.headers.get("Content-Type") || "").startsWith("application/json");
    return response.ok && response.status !== 204 && json ? response.json() : null;
  }

  async function update(element) {
    const board = boards.get(element);
    if (board.asking) return;
    const { url } = board;
    board.asking = true;
    try {
      let news = await ask(board.data ? `${url}&version=${board.data.version}` : url);
      if (news && board.data && news.times[0] > news.start && !fits(board.data, news)) news = await ask(url);
      if (!news || board.url !== url) return;
      board.data = board.data && news.times[0] > news.start ? merged(board.data, news) : news;
      drawAll(board, element);
    } catch { /* the live refresh meets the same trouble and says so */ } finally { board.asking = false; }
  }

  // --- Drawing ---

  function background(board) {
    return (plot) => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.fillStyle = colour("--tblr-border-color");
      for (const [from, to] of board.data.gaps) {
        const left = Math.max(bbox.left, plot.valToPos(from, "x", true));
        const right = Math.min(bbox.left + bbox.width, plot.valToPos(to, "x", true));
        if (right > left) ctx.fillRect(left, bbox.top, Math.max(2, right - left), bbox.height);
      }
      ctx.restore();
    };
  }

  function marks(board) {
    return (plot) => {
      const { ctx, bbox } = plot;
      const [strong, weak] = [colour("--tblr-primary"), colour("--tblr-secondary")];
      ctx.save();
      ctx.globalAlpha = 0.6;
      for (const mark of board.data.marks) {
        const x = Math.round(plot.valToPos(mark.at, "x", true));
        if (x < bbox.left || x > bbox.left + bbox.width) continue;
        ctx.strokeStyle = ctx.fillStyle = mark.kind === "state" ? weak : strong;
        ctx.setLineDash([2, 5]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        ctx.beginPath();
        ctx.moveTo(x - 4, bbox.top);
        ctx.lineTo(x + 4, bbox.top);
        ctx.lineTo(x, bbox.top + 6);
        ctx.fill();
      }
      ctx.restore();
    };
  }

  // The running interval is not over: what leads to it is drawn faintly.
  function fade(board) {
    return (plot) => {
      const { ctx, bbox } = plot;
      const [last] = board.data.times.slice(-1);
      if (last + board.data.step < Date.now() / 1000) return;
      const from = plot.valToPos(last - board.data.step, "x", true);
      ctx.save();
      ctx.globalAlpha = 0.6;
      ctx.fillStyle = colour("--tblr-bg-surface");
      ctx.fillRect(from, bbox.top, bbox.left + bbox.width - from, bbox.height);
      ctx.restore();
    };
  }

  // The mark under the cursor is told in the caption.
  function tellMark(board, kind, caption) {
    return (plot) => {
      const { left } = plot.cursor;
      const near = left >= 0 && board.data.marks.find((mark) => Math.abs(plot.valToPos(mark.at, "x") - left) < 6);
      const text = near ? near.text : stepWords(kind, board.data.step);
      if (caption.textContent !== text) caption.textContent = text;
    };
  }

  function zoom(element, plot) {
    const { left, width } = plot.select;
    if (width < 6) return;
    const url = new URL(element.dataset.zoom, location.href);
    url.searchParams.delete("range");
    for (const [name, at] of [["from", left], ["to", left + width]]) {
      url.searchParams.set(name, new Date(plot.posToVal(at, "x") * 1000).toISOString().slice(0, 19) + "Z");
    }
    location.assign(url);
  }

  function widen() {
    const url = new URL(location.href);
    if (!url.searchParams.has("from") && !url.searchParams.has("to")) return;
    if (document.referrer.startsWith(`${location.origin}/`) && history.length > 1) {
      history.back(); // to where the zoom began
      return;
    }
    url.searchParams.delete("from");
    url.searchParams.delete("to");
    location.assign(url);
  }

  // A point between gaps makes no line.
  function alone(plot, place) {
    const column = plot.data[place];
    const known = (index) => column[index] !== null && column[index] !== undefined;
    return [...column.keys()].filter((index) => known(index) && !known(index - 1) && !known(index + 1));
  }

  function options(element, holder, board, kind) {
    const { data } = board;
    const time = words(data.step, data.end - data.start);
    const grey = colour("--tblr-secondary");
    const grid = { stroke: colour("--tblr-border-color"), width: 1 };
    const caption = holder.closest("figure").querySelector("[data-step]");
    const local = zone() ? { tzDate: (at) => uPlot.tzDate(new Date(at * 1000), zone()) } : {};
    return {
      ...local,
      width: holder.clientWidth,
      height: holder.closest(".span-12") ? 260 : 210,
      cursor: { y: false, sync: { key: "omnidash" }, drag: { x: true, y: false, setScale: false }, bind: { dblclick: () => widen } },
      scales: {
        x: { time: true, range: () => [board.data.start, board.data.times.at(-1) || board.data.end] },
        y: { range: (_, low, high) => [0, kind === "failure" ? Math.min(1, Math.max(0.01, (high || 0) * 1.1)) : Math.max(kind === "latency" ? 1e-6 : 1, (high || 0) * 1.1)] },
      },
      axes: [
        { stroke: grey, grid: { show: false }, ticks: grid, space: 70, values: (_, splits) => splits.map((at) => time.format(at * 1000)) },
        { stroke: grey, grid, ticks: { show: false }, size: 62, values: (_, splits) => splits.map((number) => value(kind, number)) },
      ],
      series: [
        { label: "Time", value: (_, at) => (at === null ? "–" : time.format(at * 1000)) },
        ...lines(kind, data).map(({ label, tone, fill, dash }) => {
          const stroke = colour(`--tblr-${tone}`);
          return {
            label, stroke, dash, width: 1.5, spanGaps: kind === "latency" || kind === "failure",
            fill: fill ? `color-mix(in srgb, ${stroke} ${fill}%, transparent)` : undefined,
            points: { show: true, size: 5, fill: stroke, filter: alone }, value: (_, number) => value(kind, number),
          };
        }),
      ],
      hooks: {
        drawClear: [background(board)], draw: [fade(board), marks(board)],
        setCursor: [tellMark(board, kind, caption)], setSelect: [(plot) => zoom(element, plot)],
      },
    };
  }

  function drawAll(board, element) {
    element.querySelectorAll("[data-kind]").forEach((holder) => {
      const { kind } = holder.dataset;
      const names = lines(kind, board.data).map((line) => line.label).join("\n");
      const known = board.plots.get(holder);
      if (known && known.names === names && known.step === board.data.step) {
        known.plot.setData(columns(kind, board.data));
        return;
      }
      if (known) known.plot.destroy();
      if (!holder.clientWidth) return;
      const plot = new uPlot(options(element, holder, board, kind), columns(kind, board.data), holder);
      board.plots.set(holder, { plot, names, step: board.data.step });
      holder.closest("figure").querySelector("[data-step]").textContent = stepWords(kind, board.data.step);
    });
  }

  function forget(board) {
    for (const { plot } of board.plots.values()) plot.destroy();
    board.plots.clear();
  }

  // --- When ---

  function look() {
    for (const [element, board] of boards) {
      if (!element.isConnected) { forget(board); boards.delete(element); }
    }
    document.querySelectorAll("[data-points]").forEach((element) => {
      const url = element.dataset.points;
      const board = boards.get(element);
      if (!board) boards.set(element, { url, data: null, plots: new Map(), asking: false });
      else if (board.url !== url) Object.assign(board, { url, data: null, asking: false });
      update(element);
    });
  }

  function redraw() {
    for (const [element, board] of boards) {
      forget(board);
      if (board.data) drawAll(board, element);
    }
  }

  document.addEventListener("htmx:finally:request", look);
  document.addEventListener("omnidash:theme", redraw);
  document.addEventListener("omnidash:zone", redraw);
  let resizing = 0;
  window.addEventListener("resize", () => { clearTimeout(resizing); resizing = setTimeout(redraw, 150); });
  look();
})();
