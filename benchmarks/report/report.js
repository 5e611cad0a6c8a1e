"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const make = (tag, text, attributes = {}) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const values = JSON.parse($("values").textContent);
  let task = Object.keys(values.charts)[0];
  let pins = [];

  // ---- theme: the system's, until the reader chooses ----
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem("unlearn-kit theme", value);
      return localStorage.getItem("unlearn-kit theme");
    } catch {
      return null;
    }
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  if (remembered()) document.documentElement.dataset.theme = remembered();
  $("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = remembered(dark() ? "light" : "dark") || (dark() ? "light" : "dark");
    redraw();
  });
  system.addEventListener("change", () => redraw());

  // ---- table ----
  const bodies = all("#rows tbody");
  const matches = (row) => {
    // What every other row is compared with is always there.
    if (row.dataset.role !== "method") return true;
    const words = $("text").value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = row.querySelector(".name").textContent.toLowerCase();
    const method = $("method").value;
    return words.every((word) => text.includes(word)) && (!method || row.dataset.method === method);
  };
  const filter = () => {
    const data = $("data").value;
    const here = bodies.filter((body) => {
      body.hidden = !(data === "all" || data === `data:${body.dataset.data}` || (data === "task" && body.dataset.task === task));
      return !body.hidden;
    });
    let shown = 0, every = 0;
    for (const body of bodies) {
      body.querySelector(".group").hidden = here.length < 2;
      for (const row of all("tr[data-role]", body)) {
        row.hidden = !matches(row);
        if (!body.hidden && row.dataset.role === "method") {
          every += 1;
          shown += row.hidden ? 0 : 1;
        }
      }
    }
    $("shown").textContent = `${shown} of ${every} methods`;
  };
  for (const id of ["text", "method", "data"]) $(id).addEventListener("input", filter);

  const keyOf = (row, by) => {
    if (by === "label") return row.dataset.label;
    const text = by === "rank" ? row.dataset.rank : row.cells[Number(by) + 2].dataset.v;
    return text === "" ? null : Number(text);
  };
  const sort = (by, descending) => {
    const compare = (a, b) => {
      const [x, y] = [keyOf(a, by), keyOf(b, by)];
      if (x === null || y === null) return (x === null) - (y === null); // n/a comes last either way
      const order = typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
      return descending ? -order : order;
    };
    for (const body of bodies) body.append(...all('tr[data-role="method"]', body).sort(compare));
  };
  for (const button of all("[data-sort]")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("#rows [aria-sort]")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(button.dataset.sort, descending);
    });
  }

  // ---- pins ----
  const say = (text) => { $("said").textContent = text; };
  const pin = (id) => {
    if (!values.points[id]) return;
    pins = pins.includes(id) ? pins.filter((one) => one !== id) : [...pins, id].slice(-2);
    showPins();
    say(pins.length ? `Pinned: ${pins.map((one) => values.points[one].label).join(" and ")}` : "Nothing is pinned");
  };
  const chartBox = () => $("tradeoff").querySelector(".chart");
  const showPins = () => {
    const held = [...$("pins").children].indexOf(document.activeElement);
    for (const button of all("main [data-pin]")) button.setAttribute("aria-pressed", String(pins.includes(button.dataset.pin)));
    $("compare").hidden = pins.length === 0;
    tray();
    $("pins").replaceChildren(...pins.map((id, place) => {
      const chip = make("button", undefined, { type: "button", "data-pin": id, "aria-label": `Unpin ${values.points[id].label}` });
      chip.append(make("b", "AB"[place]), `${values.points[id].label}, ${values.points[id].who} ×`);
      return chip;
    }));
    // Whoever unpins by keyboard goes on from the next chip, or from the chart.
    if (held >= 0) ($("pins").children[Math.min(held, pins.length - 1)] || chartBox()).focus();
    $("comparison").replaceChildren(...(pins.length ? [comparison()] : []));
    losses();
    redraw(["tradeoff", "cost"]);
  };
  let beside = false;
  const tray = () => { $("tray").hidden = pins.length === 0 || beside; };
  new IntersectionObserver((entries) => {
    beside = entries.at(-1).isIntersecting;
    tray();
  }).observe($("compare"));
  const signed = (a, b) => (a === null || b === null ? "n/a" : (b - a >= 0 ? "+" : "−") + Math.abs(b - a).toPrecision(3));
  const comparison = () => {
    const [a, b] = pins.map((id) => values.points[id]);
    const reference = values.points[a.reference];
    const table = make("table"), head = make("tr"), body = make("tbody");
    const title = (mark, point) => {
      const cell = make("th", undefined, { scope: "col" });
      cell.append(`${mark} ${point.label}`, make("small", point.who), make("small", [point.task, ...point.notes].join(" · ")));
      return cell;
    };
    head.append(make("th", "", { scope: "col" }), title("A", a));
    if (b) head.append(title("B", b), make("th", "B − A", { scope: "col" }));
    if (reference) head.append(make("th", "reference", { scope: "col" }));
    const line = (name, ...cells) => {
      const row = make("tr");
      row.append(make("th", name, { scope: "row" }), ...cells.map((text) => {
        const [mean, half] = text.split(" ± ");
        const cell = make("td", mean, text.length > 24 ? { class: "long" } : {});
        if (half) cell.append(make("small", `± ${half}`));
        return cell;
      }));
      body.append(row);
    };
    values.columns.forEach((name, place) => {
      const cells = [a.values[place][1]];
      if (b) cells.push(b.values[place][1], signed(a.values[place][0], b.values[place][0]));
      if (reference) cells.push(reference.values[place][1]);
      line(name, ...cells);
    });
    for (const name of Object.keys(a.classes)) {
      const of = (point) => point.classes[name] ?? "n/a";
      const cells = [of(a)];
      if (b) cells.push(of(b), signed(...[a, b].map((point) => (name in point.classes ? Number(point.classes[name]) : null))));
      if (reference) cells.push(of(reference));
      line(`class ${name}`, ...cells);
    }
    const options = [...new Set([...Object.keys(a.options), ...Object.keys(b ? b.options : {})])];
    for (const name of options) {
      const [mine, other] = [a.options[name] ?? "–", b ? b.options[name] ?? "–" : undefined];
      if (!b) line(name, mine, ...(reference ? [""] : []));
      else if (mine !== other) line(name, mine, other, "differs", ...(reference ? [""] : []));
    }
    table.append(make("thead"), body);
    table.tHead.append(head);
    return table;
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-pin]");
    if (button) pin(button.dataset.pin);
  });
  $("clear").addEventListener("click", () => {
    pins = [];
    showPins();
    chartBox().focus();
  });

  // ---- charts: a chart is drawn when it comes near the screen, the others when the browser has time ----
  const charts = new Map(all("[data-chart]").map((box) => [box.dataset.chart, { box, view: 0, near: false, drawn: false, spot: -1 }]));
  let unpacking;
  const unpack = async () => {
    const bytes = Uint8Array.from(atob($("plotly").textContent), (sign) => sign.charCodeAt(0));
    $("plotly").textContent = "";
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    document.head.append(make("script", await new Response(stream).text()));
  };
  const needPlotly = () => (unpacking ??= unpack());
  // On a busy machine no moment is idle: then after a second.
  const whenIdle = window.requestIdleCallback ? (work) => requestIdleCallback(work, { timeout: 1000 }) : (work) => setTimeout(work, 100);
  const drawNear = () => {
    for (const [kind, chart] of charts) if (chart.near && !chart.drawn) draw(kind);
  };
  const drawLater = () => whenIdle(() => {
    const next = [...charts].find(([, chart]) => !chart.drawn);
    if (!next || !window.Plotly) return;
    draw(next[0]);
    drawLater();
  });
  addEventListener("load", () => whenIdle(() => needPlotly().then(drawLater)));
  const viewsOf = (kind) => values.charts[task][kind] || [];
  const themed = (value, colors) => {
    if (typeof value === "string") return value in colors ? colors[value] : value;
    if (Array.isArray(value)) return value.map((item) => themed(item, colors));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, colors)]));
    }
    return value;
  };
  const colorsNow = () => {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(`--${name}`).trim();
    const found = Object.fromEntries(["ink", "faint", "grid", "surface", "accent"].map((name) => [`@${name}`, read(name)]));
    const blue = dark() ? "#3d86c6" : "#2f74b5";
    found["@share"] = [[0, read("raised")], [1, blue]];
    found["@change"] = [[0, dark() ? "#c9602a" : "#d1662f"], [0.5, read("raised")], [1, blue]];
    return found;
  };
  const plain = (colors, narrow) => ({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: narrow ? 11 : 12.5, color: colors["@ink"] },
    margin: { l: narrow ? 48 : 64, r: 12, t: narrow ? 12 : 32, b: 48 },
    hovermode: "closest", dragmode: narrow ? false : "zoom",
    hoverlabel: { bgcolor: colors["@surface"], bordercolor: colors["@faint"], align: "left", font: { color: colors["@ink"], size: 13 } },
  });
  const dressed = (figure, kind, narrow) => {
    const colors = colorsNow();
    const layout = themed(figure.layout, colors);
    const axis = { gridcolor: colors["@grid"], linecolor: colors["@grid"], zeroline: false, automargin: true };
    for (const name of Object.keys(layout).filter((one) => /^[xy]axis/.test(one))) {
      layout[name] = { ...axis, ...layout[name] };
      if (layout[name].title) layout[name].title.standoff = 10;
    }
    const data = themed(figure.data, colors);
    if (kind === "classes") {
      if (narrow) {
        if (!printing) delete data[0].texttemplate;
        const short = (text) => (text.length > 20 ? `${text.slice(0, 9)}…${text.slice(-10)}` : text);
        layout.yaxis = { ...layout.yaxis, tickmode: "array", tickvals: data[0].y, ticktext: data[0].y.map(short), tickfont: { size: 10 } };
        layout.xaxis = { ...layout.xaxis, tickangle: -60, tickfont: { size: 10 } };
      }
    } else {
      const entries = data.filter((trace) => trace.showlegend !== false).length;
      layout.showlegend = true;
      if (narrow) {
        layout.legend = { orientation: "h", y: -0.16, yanchor: "top", x: 0, tracegroupgap: 0, font: { size: 11 } };
        layout.height += 24 * Math.ceil(entries / 2);
        if (kind === "learning") layout.legend.y = -0.1;
      } else {
        layout.legend = { x: 1.02, y: 1, tracegroupgap: 0, font: { size: 12 } };
        layout.height = Math.max(layout.height, 60 + 20 * entries);
      }
    }
    return {
      data: [...data, ...pinned(data, kind, colors)],
      layout: {
        ...layout,
        ...plain(colors, narrow),
        modebar: { bgcolor: "rgba(0,0,0,0)", color: colors["@faint"], activecolor: colors["@ink"] },
        hoverdistance: 24,
      },
    };
  };
  const pinned = (data, kind, colors) => {
    if (kind !== "tradeoff" && kind !== "cost") return [];
    const spots = pins.flatMap((id, place) => data.flatMap((trace) => {
      const index = (trace.customdata || []).indexOf(id);
      return index < 0 ? [] : [{ x: trace.x[index], y: trace.y[index], text: `<b>${"AB"[place]}</b>` }];
    }));
    return spots.length === 0 ? [] : [{
      type: "scatter", mode: "markers+text", hoverinfo: "skip", showlegend: false, cliponaxis: false,
      x: spots.map((s) => s.x), y: spots.map((s) => s.y), text: spots.map((s) => s.text), textposition: "top center",
      textfont: { size: 14, color: colors["@accent"] },
      marker: { symbol: "circle-open", size: 26, color: colors["@accent"], line: { width: 2.5 } },
    }];
  };
  const draw = (kind) => {
    const chart = charts.get(kind), views = viewsOf(kind), box = chart.box;
    if (views.length && !window.Plotly) {
      needPlotly().then(drawNear);
      return;
    }
    chart.spot = -1;
    chart.drawn = true;
    box.classList.toggle("none", views.length === 0);
    if (views.length === 0) {
      if (box.data) Plotly.purge(box); // and its listeners with it
      chart.listens = false;
      box.replaceChildren(make("p", "Nothing of this is recorded for this task.", { class: "empty" }));
      return;
    }
    chart.view = Math.min(chart.view, views.length - 1);
    if (!box.data) box.replaceChildren();
    const narrow = printing || box.clientWidth < 640;
    const { data, layout } = dressed(views[chart.view].figure, kind, narrow);
    layout.uirevision = `${task} ${chart.view}`; // until then, zoom and hidden names are the reader's
    const config = {
      displaylogo: false, responsive: true, displayModeBar: narrow || kind === "classes" ? false : "hover", doubleClick: "reset",
      showSendToCloud: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
      toImageButtonOptions: { format: "svg", filename: `unlearn-kit-${kind}` },
    };
    layout.autosize = !printing;
    if (printing) layout.width = PAPER;
    Plotly.react(box, data, layout, config);
    if (!chart.listens) {
      chart.listens = true;
      box.on("plotly_click", (event) => pin(idAt(event.points[0])));
    }
  };
  const median = (numbers) => {
    const sorted = [...numbers].sort((a, b) => a - b), half = sorted.length / 2;
    return Number(((sorted[Math.ceil(half) - 1] + sorted[Math.floor(half)]) / 2).toPrecision(3));
  };
  const FLOOR = 1e-4; // losses below are drawn there
  const losses = () => {
    const held = pins.map((id) => values.points[id]).map((point, place) => ({ ...point, mark: "AB"[place] })).filter((point) => point.losses);
    $("losses").hidden = held.length === 0;
    if (held.length === 0) return;
    // In words, too: for who cannot see the chart, and for who asks what it comes to.
    $("losses-said").textContent = held.map((point) => {
      const [theirs, own] = point.losses, above = own.filter((loss, place) => loss > theirs[place]).length;
      return `${point.mark} ${point.label}: ${above} of ${own.length} samples are known less well than by the reference; median loss ${median(own)}, the reference's ${median(theirs)}.`;
    }).join(" ");
    if (!window.Plotly) {
      needPlotly().then(losses);
      return;
    }
    const box = $("losses-chart"), narrow = printing || box.clientWidth < 640, colors = colorsNow();
    const shown = (numbers) => numbers.map((number) => Math.max(number, FLOOR));
    const data = held.map((point, place) => ({
      type: "scatter", mode: "markers", name: `${point.mark} ${point.label}, ${point.losses_of}`.replace(/&/g, "&amp;").replace(/</g, "&lt;"),
      x: shown(point.losses[0]), y: shown(point.losses[1]), hovertemplate: "reference %{x:.3g}<br>revised %{y:.3g}<extra></extra>",
      marker: { size: 7, opacity: 0.65, symbol: ["circle", "diamond"][place], color: ["#0072B2", "#D55E00"][place] },
    }));
    const ends = data.flatMap((trace) => [...trace.x, ...trace.y]);
    const [low, high] = [Math.min(...ends) / 1.5, Math.max(...ends) * 1.5];
    const digits = high / low < 1000 ? [1, 2, 5] : [1];
    const ticks = [-4, -3, -2, -1, 0, 1, 2].flatMap((power) => digits.map((digit) => Number(`${digit}e${power}`)));
    const axis = (title) => ({
      type: "log", title: { text: title }, range: [Math.log10(low), Math.log10(high)], tickmode: "array", tickvals: ticks, ticktext: ticks.map(String),
      gridcolor: colors["@grid"], linecolor: colors["@grid"], zeroline: false, automargin: true,
    });
    const layout = {
      ...plain(colors, narrow), height: narrow ? 400 : 460, showlegend: true,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, xaxis: axis("loss under the reference"), yaxis: axis("loss under the revised model"),
      shapes: [{ type: "line", layer: "below", x0: low, y0: low, x1: high, y1: high, line: { color: colors["@faint"], width: 1, dash: "dash" } }],
      autosize: !printing, ...(printing ? { width: PAPER } : {}),
    };
    Plotly.react(box, data, layout, { displayModeBar: false, responsive: true });
  };
  const idAt = (point) => (Array.isArray(point.pointNumber) ? point.data.customdata[point.pointNumber[0]][point.pointNumber[1]] : point.data.customdata?.[point.pointNumber]);
  const redraw = (kinds = [...charts.keys()]) => {
    for (const kind of kinds) {
      const chart = charts.get(kind);
      chart.drawn = false;
      if (chart.near || printing) draw(kind);
    }
    if (pins.length && kinds.length > 2) losses(); // the theme or the paper changed
    drawLater();
  };

  // ---- on paper everything is there, light and as wide as the paper ----
  const PAPER = 680; // pixels between the margins of A4 and of Letter
  let printing = false, before;
  addEventListener("beforeprint", () => {
    if (printing) return;
    before = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    printing = true;
    redraw();
  });
  addEventListener("afterprint", () => {
    printing = false;
    if (before) document.documentElement.dataset.theme = before;
    else delete document.documentElement.dataset.theme;
    redraw();
  });
  const buttons = () => {
    for (const box of all("[data-views]")) {
      const kind = box.dataset.views, views = viewsOf(kind), chart = charts.get(kind);
      box.replaceChildren(...(views.length < 2 ? [] : views.map((view, place) => {
        const button = make("button", view.name, { type: "button", "aria-pressed": String(place === chart.view) });
        button.addEventListener("click", () => {
          chart.view = place;
          all("button", box).forEach((other, number) => other.setAttribute("aria-pressed", String(number === place)));
          redraw([kind]);
        });
        return button;
      })));
    }
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const kind = entry.target.dataset.chart, chart = charts.get(kind);
      chart.near = entry.isIntersecting;
      if (chart.near && !chart.drawn) draw(kind);
    }
  }, { rootMargin: "300px 0px" });

  // Points by keyboard: one after another as they are drawn, hidden ones left out.
  const stops = (box) => (box.data || []).flatMap((trace, curve) => {
    if (!trace.customdata || trace.visible === "legendonly") return [];
    if (trace.type === "heatmap") {
      return trace.customdata.flatMap((line, row) => line.map((id, column) => ({ curve, number: [row, column], id, text: trace.hovertext[row][column] })));
    }
    return trace.customdata.flatMap((id, number) => (id === null ? [] : [{ curve, number, id, text: trace.hovertext[number] }]));
  });
  const decode = (html) => html.replace(/<br>/g, ", ").replace(/<\/?b>/g, "")
    .replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  for (const [kind, chart] of charts) {
    chart.box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.target !== chart.box || viewsOf(kind).length === 0) return;
      const spots = stops(chart.box);
      if (step && spots.length) {
        event.preventDefault();
        chart.spot = (chart.spot + step + spots.length + (chart.spot < 0 && step < 0 ? 1 : 0)) % spots.length;
        const spot = spots[chart.spot];
        Plotly.Fx.hover(chart.box, [{ curveNumber: spot.curve, pointNumber: spot.number }]);
        say(decode(spot.text));
      } else if (event.key === "Enter" && spots[chart.spot]) {
        event.preventDefault();
        const here = chart.spot;
        pin(spots[here].id);
        chart.spot = here;
      } else if (event.key === "Escape" && window.Plotly) {
        Plotly.Fx.unhover(chart.box);
      }
    });
  }

  // ---- tasks ----
  const choose = (name) => {
    task = name;
    if ($("task")) $("task").value = name;
    for (const node of all("div[data-task]")) node.hidden = node.dataset.task !== task;
    for (const chart of charts.values()) chart.view = 0;
    filter();
    buttons();
    redraw();
  };
  if ($("task")) $("task").addEventListener("input", () => choose($("task").value));

  // ---- how to have a row again ----
  const open = () => {
    const target = $(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.matches("details.again")) return;
    const owner = target.closest("[data-task]");
    if (owner && owner.dataset.task !== task) choose(owner.dataset.task);
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus({ preventScroll: true });
  };
  addEventListener("hashchange", open);
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("pre").textContent;
      try {
        await navigator.clipboard.writeText(text);
      } catch {
        const area = make("textarea", text);
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
        button.focus();
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  choose(task);
  open();
  for (const chart of charts.values()) watcher.observe(chart.box);
})();
