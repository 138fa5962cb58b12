/** A plot as SVG, drawn by ECharts without a browser. */
import type { CustomSeriesOption, EChartsOption, SeriesOption } from "echarts";
import type { Plot } from "../support/plot.ts";
import { formatNumber, type Spread } from "../support/stats.ts";

/** Okabe and Ito's colours, which colour-blind people can tell apart. */
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#8a6d00"];
const WIDTH = 760;
const BARS_HEAD = 110;
const BAR = 30;
const LINES_HEIGHT = 440;
const INK = "#333333";
const FONT = "sans-serif";
/** Half the width of the short stroke that ends a spread. */
const CAP = 4;

export async function drawPlot(plot: Plot): Promise<string> {
  // It takes a third of a second to load, which only a run with a page has to pay for.
  const { init } = await import("echarts");
  const height = plot.kind === "lines" ? LINES_HEIGHT : BARS_HEAD + BAR * plot.categories.length * plot.series.length;
  const chart = init(null, null, { renderer: "svg", ssr: true, width: WIDTH, height });
  chart.setOption(plot.kind === "bars" ? barsOf(plot) : linesOf(plot));
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

function headOf({ title }: Plot): EChartsOption {
  return {
    animation: false,
    // White, whatever the page behind it is.
    backgroundColor: "#ffffff",
    color: COLORS,
    textStyle: { fontFamily: FONT, color: INK },
    title: { text: title, left: 12, top: 8, textStyle: { fontSize: 15, fontFamily: FONT, color: INK } },
  };
}

function valueAxis({ scale, unit }: Plot) {
  return {
    type: scale === "log" ? ("log" as const) : ("value" as const),
    name: unit,
    nameLocation: "middle" as const,
    axisLabel: { formatter: (value: number) => value.toLocaleString("en-US"), color: INK },
    nameTextStyle: { color: INK },
  };
}

function barsOf(plot: Plot): EChartsOption {
  return {
    ...headOf(plot),
    grid: { left: 200, right: 80, top: 48, bottom: 56 },
    xAxis: { ...valueAxis(plot), nameGap: 30 },
    yAxis: {
      type: "category",
      inverse: true,
      data: [...plot.categories],
      axisLabel: { color: INK, width: 185, overflow: "break" },
      axisTick: { show: false },
    },
    ...(plot.series.length > 1 && { legend: { top: 28, left: 12, textStyle: { color: INK } } }),
    series: plot.series.flatMap(({ name, values }): SeriesOption[] => [
      {
        type: "bar",
        name,
        barMaxWidth: 18,
        data: values.map((spread) => spread?.median ?? null),
      },
      ...(plot.series.length === 1 ? [spreadsOf(values)] : []),
    ]),
  };
}

/** From the least to the greatest, with the median written beside it. */
function spreadsOf(values: readonly (Spread | null)[]): CustomSeriesOption {
  return {
    type: "custom",
    silent: true,
    z: 3,
    encode: { x: [0, 1], y: 2 },
    data: values.flatMap((spread, at) => (spread === null ? [] : [[spread.min, spread.max, at, spread.median]])),
    renderItem: (_, api) => {
      const at = api.value(2);
      const [from, y] = api.coord([api.value(0), at]) as [number, number];
      const [to] = api.coord([api.value(1), at]) as [number, number];
      const style = { stroke: INK, lineWidth: 1.2 };
      const stroke = (x1: number, y1: number, x2: number, y2: number) => ({
        type: "line" as const,
        shape: { x1, y1, x2, y2 },
        style,
      });
      return {
        type: "group",
        children: [
          stroke(from, y, to, y),
          stroke(from, y - CAP, from, y + CAP),
          stroke(to, y - CAP, to, y + CAP),
          {
            type: "text",
            style: {
              text: formatNumber(Number(api.value(3))),
              x: to + 8,
              y,
              verticalAlign: "middle",
              fill: INK,
              font: `12px ${FONT}`,
            },
          },
        ],
      };
    },
  };
}

function linesOf(plot: Plot): EChartsOption {
  return {
    ...headOf(plot),
    grid: { left: 80, right: 240, top: 48, bottom: 56 },
    legend: { orient: "vertical", right: 12, top: 56, textStyle: { color: INK } },
    xAxis: {
      type: "category",
      boundaryGap: false,
      data: [...plot.categories],
      name: plot.axis ?? "",
      nameLocation: "middle",
      nameGap: 30,
      nameTextStyle: { color: INK },
      axisLabel: { color: INK },
    },
    yAxis: { ...valueAxis(plot), nameGap: 60 },
    series: plot.series.map(({ name, values }) => ({
      type: "line",
      name,
      symbol: "circle",
      symbolSize: 7,
      data: values.map((spread) => spread?.median ?? null),
    })),
  };
}
