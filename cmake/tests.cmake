# A unit or contract test is one file tests/{unit,contract}/ROOM/NAME_test.c: found by the build, run by ctest.
# It links the room that its folder names, and so proves that the room stands on its own.
find_library(CMOCKA_LIBRARY cmocka REQUIRED)
file(GLOB_RECURSE TEST_SOURCES CONFIGURE_DEPENDS tests/unit/*_test.c tests/contract/*_test.c)
foreach(source IN LISTS TEST_SOURCES)
  file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR}/tests ${source})
  string(REGEX REPLACE "^[a-z]+/([a-z]+)/.*" "\\1" test_room "${name}")
  string(REGEX REPLACE "[/.]" "_" target "${name}")
  string(REGEX REPLACE "_test_c$" "" target "${target}")
  if(NOT TARGET room_${test_room})
    message(STATUS "left out: ${name} (its room is not in this build)")
    continue()
  endif()
  add_executable(${target} ${source})
  target_link_libraries(${target} PRIVATE room_${test_room} ${CMOCKA_LIBRARY})
  add_test(NAME ${target} COMMAND ${target})
  set(test_environment "QUIESCED_BUILD=${CMAKE_BINARY_DIR}" "QUIESCED_SOURCE=${CMAKE_SOURCE_DIR}" "QUIESCED_AGENT=${CMAKE_BINARY_DIR}/quiesced-agent")
  set_tests_properties(${target} PROPERTIES TIMEOUT 400 LABELS unit ENVIRONMENT "${test_environment}")
  if(target MATCHES "^unit_(base|store)_|^unit_(worker_freeze_guard|movers_hasher)$") # rooms that have threads
    list(APPEND THREADED_TESTS ${target})
  endif()
  if(test_room STREQUAL worker) # real writers with real deadlines: alone on the machine, not beside each other
    set_tests_properties(${target} PROPERTIES RUN_SERIAL ON)
  endif()
endforeach()
# What ThreadSanitizer is asked about: these, and whole sessions of the programs (tests/system/test_threads.py).
add_custom_target(threaded DEPENDS ${THREADED_TESTS} product)

# The kill matrix's heart-beat: a program of the test, not of the product, that must not be late by itself.
add_executable(matrix-pulse tests/matrix/pulse.c)

# The example of docs/writing-a-writer.md: built as its readers build it, and put to quiesced writer-check.
add_executable(example-directory-writer examples/directory_writer.c)
target_link_libraries(example-directory-writer PRIVATE PkgConfig::JANSSON)

# Fuzz targets, tests/fuzz/NAME_fuzz.c. With QUIESCED_FUZZER (preset fuzz) libFuzzer drives them; otherwise the runner does, a few
# seconds each, as a test.
function(fuzz name)
  add_executable(fuzz_${name} tests/fuzz/${name}_fuzz.c)
  target_link_libraries(fuzz_${name} PRIVATE ${ARGN})
  if(QUIESCED_FUZZER)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(fuzz_${name} PRIVATE tests/fuzz/runner.c)
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
    set_tests_properties(fuzz_${name} PROPERTIES TIMEOUT 120 LABELS unit)
  endif()
endfunction()
fuzz(gate room_front PkgConfig::MICROHTTPD)
fuzz(ipc room_base)
fuzz(body room_api)
fuzz(target room_api)
fuzz(conf room_conf)
fuzz(writer room_worker)
fuzz(document room_api)
fuzz(archive room_movers)
fuzz(restic room_movers)
fuzz(cursor room_api)
fuzz(trace room_api)
fuzz(event_id room_api)
fuzz(preface room_api)
fuzz(borg room_movers)
