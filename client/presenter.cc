#include "client/presenter.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/format.h"

namespace accrue {

Presenter::Presenter(const Options& options) : options_(options) {
  if (live()) painter_ = std::make_unique<Painter>(*options_.out);
}

void Presenter::Apply(const FollowEvent& event) {
  switch (event.kind) {
    case FollowEvent::Kind::kUpdate:
      model_.Apply(event.update);
      ShowUpdate(event.update);
      break;
    case FollowEvent::Kind::kLost:
      // What is cut off where the window is narrow comes last.
      SetNotice(absl::StrCat("connection lost; trying again from window ", event.next_window + 1, ": ",
                             event.status.message()));
      break;
    case FollowEvent::Kind::kBack:
      SetNotice("");
      Say(absl::StrCat("connected again, from window ", event.next_window + 1));
      break;
    case FollowEvent::Kind::kEnded:
      break;
  }
}

void Presenter::ShowUpdate(const v1::WatchResponse& update) {
  if (options_.mode == Mode::kPlain) return ShowPlain(update);
  if (options_.mode != Mode::kJson) return;  // the live view is painted at its own pace
  nlohmann::ordered_json object;
  const auto put = [&object](const char* type, const google::protobuf::Message& message) {
    object["type"] = type;
    object.update(ToJson(message));
  };
  if (update.has_window()) put("window", update.window());
  if (update.has_status()) put("status", update.status());
  if (update.has_evaluation()) put("evaluation", update.evaluation());
  *options_.out << object.dump() << std::endl;
}

void Presenter::ShowPlain(const v1::WatchResponse& update) {
  if (update.has_status()) {
    const std::string line = StatusLine(update.status());
    // Of the end, the command itself has more to say.
    if (line != last_status_line_ && !HasEnded(update.status().state())) *options_.out << line << std::endl;
    last_status_line_ = line;
  }
  if (update.has_evaluation()) *options_.out << EvaluationLine(update.evaluation()) << std::endl;
  if (!update.has_window()) return;
  const v1::WindowRecord& record = update.window();
  const int64_t total = model_.status().total_windows();
  const int64_t every = options_.every > 0 ? options_.every : PlainStride(total);
  const int64_t number = record.window() + 1;
  if (number == 1 || number == total || number % every == 0 || record.skipped()) {
    *options_.out << WindowLine(model_, record) << std::endl;
  }
}

void Presenter::Say(const std::string& text) {
  if (live()) {
    painter_->PrintAbove(text);
  } else {
    *(options_.mode == Mode::kJson ? options_.err : options_.out) << text << std::endl;
  }
}

void Presenter::SetNotice(const std::string& text) {
  model_.SetNotice(text);
  if (live()) {
    Paint();
  } else if (!text.empty()) {
    Say(text);
  }
}

void Presenter::Paint() {
  if (!live()) return;
  ViewOptions view;
  view.width = options_.terminal.Width();
  view.height = options_.terminal.Height() - 1;
  view.color = options_.terminal.color;
  view.unicode = options_.terminal.unicode;
  view.now_unix_ns = options_.clock->WallNowUnixNs();
  painter_->Paint(RenderLive(model_, view));
}

}  // namespace accrue
