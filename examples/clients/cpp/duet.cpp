// Two models in one program, in C++: each continues what the other said. Any two models of bytes will do; here they are
// called bard and second.
//
//   cmake -S examples/clients/cpp -B duet -DCMAKE_PREFIX_PATH="$PWD/build;$PWD/second" && cmake --build duet
//   ./duet/duet build/bard.weights second/second.weights "JULIET." 4
//
// The libraries share no names, so nothing needs to be kept apart by hand; the static ones go together just as well.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "bard.h"
#include "second.h"

// A model's C interface, as values.
template <class Model, class Session, class Error, class Options>
struct Interface {
    int (*open)(const char *, const Options *, Model **, Error **);
    int (*session_new)(Model *, size_t, Session **, Error **);
    int (*step)(Session *, const int32_t *, size_t, float *, Error **);
    void (*session_free)(Session *);
    void (*close)(Model *);
    const char *(*error_message)(const Error *);
    void (*error_free)(Error *);
};

// A model with one session, both given back at the end.
template <class Model, class Session, class Error, class Options>
class Voice {
public:
    Voice(Interface<Model, Session, Error, Options> interface, const char *weights, size_t room, size_t vocabulary)
        : interface(interface), model(nullptr, interface.close), session(nullptr, interface.session_free), logits(vocabulary) {
        Model *opened = nullptr;
        Session *made = nullptr;
        Error *error = nullptr;
        check(interface.open(weights, nullptr, &opened, &error), error);
        model.reset(opened);
        check(interface.session_new(opened, room, &made, &error), error);
        session.reset(made);
    }

    // Hears `text`, and says `count` bytes in answer.
    std::string answer(const std::string &text, size_t count) {
        std::string said;
        std::vector<int32_t> ids(text.begin(), text.end());
        while (said.size() < count) {
            Error *error = nullptr;
            check(interface.step(session.get(), ids.data(), ids.size(), logits.data(), &error), error);
            ids.assign(1, static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
            said.push_back(static_cast<char>(ids[0]));
        }
        return said;
    }

private:
    void check(int code, Error *error) {
        if (code == 0) return;
        const std::string message = interface.error_message(error);
        interface.error_free(error);
        throw std::runtime_error(message);
    }

    Interface<Model, Session, Error, Options> interface;
    std::unique_ptr<Model, void (*)(Model *)> model; // before the session, so that it goes last
    std::unique_ptr<Session, void (*)(Session *)> session;
    std::vector<float> logits;
};

int main(int argc, char **argv) {
    if (argc != 5) {
        std::fprintf(stderr, "usage: %s BARD.WEIGHTS SECOND.WEIGHTS PROMPT TURNS\n", argv[0]);
        return 2;
    }
    const size_t bytes = 24, turns = std::strtoul(argv[4], nullptr, 10);
    std::string text = argv[3];
    const size_t room = text.size() + 2 * bytes * (turns + 1);
    try {
        const Interface first{bard_open, bard_session_new, bard_step, bard_session_free,
                              bard_close, bard_error_message, bard_error_free};
        const Interface other{second_open, second_session_new, second_step, second_session_free,
                              second_close, second_error_message, second_error_free};
        Voice bard(first, argv[1], room, BARD_VOCAB);
        Voice second(other, argv[2], room, SECOND_VOCAB);
        std::printf("%s", text.c_str());
        for (size_t turn = 0; turn < turns; turn++) {
            text = turn % 2 == 0 ? bard.answer(text, bytes) : second.answer(text, bytes);
            std::printf("%s", text.c_str());
        }
        std::printf("\n");
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
