/** The texts that a browser loads. Deno 2.5 and 2.6 load this file with `raw-imports` alone. */
import uplotJs from "uplot/dist/uPlot.esm.js" with { type: "text" };
import uplotCss from "uplot/dist/uPlot.min.css" with { type: "text" };
import clientTypes from "../client/client.d.ts" with { type: "text" };
import clientJs from "../client/client.js" with { type: "text" };
import chartsJs from "../web/charts.js" with { type: "text" };
import chatCss from "../web/chat.css" with { type: "text" };
import chatHtml from "../web/chat.html" with { type: "text" };
import chatJs from "../web/chat.js" with { type: "text" };
import dashboardCss from "../web/dashboard.css" with { type: "text" };
import dashboardHtml from "../web/dashboard.html" with { type: "text" };
import dashboardJs from "../web/dashboard.js" with { type: "text" };
import messageJs from "../web/message.js" with { type: "text" };
import messagesJs from "../web/messages.js" with { type: "text" };
import pageCss from "../web/page.css" with { type: "text" };
import peopleJs from "../web/people.js" with { type: "text" };

/** Path → text. */
export const FILES = {
  "/": chatHtml,
  "/chat.js": chatJs,
  "/chat.css": chatCss,
  "/message.js": messageJs,
  "/messages.js": messagesJs,
  "/people.js": peopleJs,
  "/page.css": pageCss,
  "/client.js": clientJs,
  "/client.d.ts": clientTypes,
  "/dashboard": dashboardHtml,
  "/dashboard.js": dashboardJs,
  "/charts.js": chartsJs,
  "/dashboard.css": dashboardCss,
  "/uplot.js": uplotJs,
  "/uplot.css": uplotCss,
};
